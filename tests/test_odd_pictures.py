"""Pictures of unusual depths and curves are read right or refused."""

from __future__ import annotations

import struct
import zlib
from types import ModuleType

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from jores.files import png
from jores.files.pictures import ImageFileError, read_image
from jores.imaging.srgb import decode_srgb, encode_srgb
from tests.files_by_hand import SIZE, levels, packed, png_of, tiff_of, written_again


@pytest.mark.parametrize("gamma", [100_000, 55_556, 200_000, 38_000])
@pytest.mark.parametrize("bits", [8, 16])
def test_gama_is_heeded_and_kept(tmp_path, gamma, bits):
    stored = levels(3, bits)
    chroma = (b"cHRM", struct.pack(">8I", *range(8)))
    (tmp_path / "a.png").write_bytes(png_of(stored, (b"gAMA", struct.pack(">I", gamma)), chroma))
    found = read_image(tmp_path / "a.png")
    light = (stored / (2**bits - 1)) ** (100_000 / gamma)
    assert np.abs(found.pixels.permute(1, 2, 0).numpy() - encode_srgb(light)).max() < 1e-4
    again = written_again(tmp_path / "a.png")
    assert {(b"gAMA", struct.pack(">I", gamma)), chroma} <= set(png.chunks(again.read_bytes()))
    assert read_image(again).pixels.equal(found.pixels)


@pytest.mark.parametrize(
    ("chunks", "power"),
    [
        (((b"gAMA", struct.pack(">I", 45_455)),), None),
        (((b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))), None),
        (((b"iCCP", b"p\0\0" + zlib.compress(bytes(132))), (b"gAMA", struct.pack(">I", 100_000))), None),
        (((b"gAMA", bytes(4)),), None),
        (((b"cICP", bytes((1, 13, 0, 1))), (b"gAMA", struct.pack(">I", 100_000))), None),
        (((b"cICP", bytes((12, 13, 0, 1))),), None),
        (((b"cICP", bytes((9, 8, 0, 1))),), 1.0),
    ],
)
def test_which_chunk_speaks_for_the_colours(tmp_path, chunks, power):
    (tmp_path / "a.png").write_bytes(png_of(levels(), *chunks))
    assert read_image(tmp_path / "a.png").metadata.power == power
    kept = set(png.chunks(written_again(tmp_path / "a.png").read_bytes()))
    assert {chunk for chunk in chunks if chunk[0] != b"iCCP"} <= kept


@pytest.mark.parametrize(
    ("code", "word"), [((9, 16, 0, 1), "PQ"), ((9, 18, 0, 1), "HLG"), ((12, 16, 0, 1), "PQ"), ((1, 1, 0, 0), "range 0")]
)
@pytest.mark.parametrize("bits", [8, 16])
def test_hdr_pngs_are_refused(tmp_path, code, word, bits):
    (tmp_path / "a.png").write_bytes(png_of(levels(3, bits), (b"cICP", bytes(code))))
    with pytest.raises(ImageFileError, match=f"a.png.*{word}"):
        read_image(tmp_path / "a.png")


def test_the_srgb_curve_and_back():
    values = torch.linspace(0, 1, 65536)
    assert (encode_srgb(decode_srgb(values)) - values).abs().max() < 1e-6
    assert np.allclose(encode_srgb(np.array([0.0, 0.2140, 1.0])), [0, 0.5, 1], atol=1e-3)


@pytest.mark.parametrize("key", [0, 7196, 65535])
def test_a_transparent_level_of_grey_in_16_bits(tmp_path, key):
    stored = levels(1, 16)
    stored[3:6, 4:9] = key
    (tmp_path / "a.png").write_bytes(png_of(stored, (b"tRNS", struct.pack(">H", key))))
    found = read_image(tmp_path / "a.png")
    assert found.bit_depth == 16 and found.pixels.shape == (4, *SIZE)
    assert np.array_equal(found.pixels[3].numpy() == 0, stored[..., 0] == key)
    assert np.array_equal((found.pixels[0] * 65535).round().numpy(), stored[..., 0])


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflated", [False, True])
def test_tiffs_of_9_to_15_bits(tmp_path, bits, channels, order, deflated):
    values = np.random.default_rng(bits).integers(0, 2**bits, (*SIZE, channels))
    data = packed(values, bits)
    extra = ((259, 4, 8),) if deflated else ()
    data = zlib.compress(data) if deflated else data
    (tmp_path / "a.tif").write_bytes(tiff_of(data, bits, channels, *extra, order=order))
    found = read_image(tmp_path / "a.tif")
    assert (found.bit_depth, found.grey) == (16, channels == 1)
    assert np.array_equal((found.pixels[:channels] * (2**bits - 1)).round().permute(1, 2, 0).numpy(), values)
    again = tifffile.imread(written_again(tmp_path / "a.tif")).reshape(*SIZE, channels)
    assert np.array_equal(np.rint(again / 65535 * (2**bits - 1)), values)


@pytest.mark.parametrize("largest", [1023, 4095, 16383])
@pytest.mark.parametrize("channels", [1, 3])
def test_fewer_bits_in_a_tiff_of_16(tmp_path, largest, channels):
    values = np.random.default_rng(1).integers(0, largest + 1, (*SIZE, channels)).astype(np.uint16)
    photometric = "rgb" if channels == 3 else "minisblack"
    tag = [(281, "H", channels, (largest,) * channels if channels > 1 else largest, True)]
    tifffile.imwrite(tmp_path / "a.tif", values.squeeze(), photometric=photometric, extratags=tag)
    found = read_image(tmp_path / "a.tif")
    assert np.array_equal((found.pixels[:channels] * largest).round().permute(1, 2, 0).numpy(), values)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tiffs_of_fewer_than_8_bits(tmp_path, bits, channels):
    values = np.random.default_rng(bits).integers(0, 2**bits, (*SIZE, channels))
    extra = ((338, 3, 2),) if channels in (2, 4) else ()
    (tmp_path / "a.tif").write_bytes(tiff_of(packed(values, bits), bits, channels, *extra))
    found = read_image(tmp_path / "a.tif")
    assert (len(found.pixels), found.grey) == (4 if channels in (2, 4) else 3, channels < 3)
    seen = (found.pixels * (2**bits - 1)).round().permute(1, 2, 0).numpy()
    assert np.array_equal(seen[..., [0, 3]] if channels == 2 else seen[..., :channels], values)
    again = read_image(written_again(tmp_path / "a.tif")).pixels
    assert (again - found.pixels).abs().max() < 1e-4


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_tiffs_of_fewer_than_8_bits_whose_0_is_white(tmp_path, bits):
    values = np.random.default_rng(bits).integers(0, 2**bits, SIZE)
    (tmp_path / "a.tif").write_bytes(tiff_of(packed(values, bits), bits, 1, (262, 3, 0)))
    found = read_image(tmp_path / "a.tif")
    assert found.bit_depth == 8
    assert np.abs(found.pixels[0].numpy() - (1 - values / (2**bits - 1))).max() < 1e-6


def test_grey_and_alpha_in_planes_of_their_own(tmp_path):
    values = levels(2, 8)
    options = {"photometric": "minisblack", "planarconfig": "separate", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(values.transpose(2, 0, 1)), compression="zlib", **options)
    found = (read_image(tmp_path / "a.tif").pixels * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(found, values[..., [0, 0, 0, 1]])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.complex64])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_floating_point_tiffs_are_refused_by_name(tmp_path, kind, channels, compression):
    photometric = "rgb" if channels > 1 else "minisblack"
    values = np.full((*SIZE, channels), 0.5, kind).squeeze()
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric, compression=compression)
    with pytest.raises(ImageFileError, match="a.tif.*floating-point"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("level", [0, 1])
def test_a_transparent_level_of_grey_in_few_bits(tmp_path, bits, level):
    values = np.random.default_rng(bits).integers(0, 2**bits, (*SIZE, 1))
    rows = np.frombuffer(packed(values, bits), np.uint8).reshape(SIZE[0], -1)
    made = png_of(np.zeros((*SIZE, 1), np.uint8), (b"tRNS", struct.pack(">H", level)))
    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], bits, 0, 0, 0, 0)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    kept = [(b"IHDR", header), *((n, b) for n, b in png.chunks(made) if n == b"tRNS"), (b"IDAT", zlib.compress(body))]
    kept = [
        struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in (*kept, (b"IEND", b""))
    ]
    (tmp_path / "a.png").write_bytes(png.SIGNATURE + b"".join(kept))
    found = read_image(tmp_path / "a.png").pixels
    assert np.array_equal(found[3].numpy() == 0, values[..., 0] == level)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize("channels", [1, 3])
def test_signed_tiffs_are_refused(tmp_path, kind, channels):
    photometric = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", np.ones((*SIZE, channels), kind).squeeze(), photometric=photometric)
    with pytest.raises(ImageFileError, match="a.tif.*signed"):
        read_image(tmp_path / "a.tif")


def test_grey_with_alpha_in_a_tiff_of_16_bits(tmp_path):
    values = levels(2, 16)
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    found = (read_image(tmp_path / "a.tif").pixels * 65535).round().permute(1, 2, 0).numpy()
    assert np.array_equal(found, values[..., [0, 0, 0, 1]])


class Watched(ModuleType):
    """A module none of whose variables is set."""

    def __setattr__(self, name, value):
        if name != "__class__":
            raise AssertionError(f"{name} is set, for the whole process")
        super().__setattr__(name, value)


@pytest.mark.parametrize("name, options", [
    ("a.png", {}), ("a.jpg", {}), ("a.tif", {}), ("a.tif", {"compression": "tiff_lzw"}), ("a.bmp", {}),
    ("a.tif", {"tiffinfo": {274: 6}}),
])  # fmt: skip
def test_no_limit_of_pillows_stands_in_the_way_and_none_is_lifted(tmp_path, monkeypatch, name, options):
    """Pillow refuses 179 megapixels; here, 21 pixels."""
    Image.fromarray(levels()).save(tmp_path / name, **options)
    expected = read_image(tmp_path / name).pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with monkeypatch.context() as watched:
        watched.setattr(Image, "__class__", Watched)
        assert torch.equal(read_image(tmp_path / name).pixels, expected)
    assert sorted(expected.shape) == sorted((3, *SIZE))
