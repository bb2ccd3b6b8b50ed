"""Other pictures of the kinds that were once garbled or lost something: other formats, layouts and parts."""

from __future__ import annotations

import functools
import io
import json
import struct

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from jores.checkpoint import save_bundle
from jores.cli import main
from jores.files import jpeg, png
from jores.files.codecs import encode_bmp_alpha
from jores.files.pictures import ImageFileError, check_fits, read_image
from tests.files_by_hand import SIZE, levels, png_of, written_again
from tests.tiny import TINY, shaken


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_bundle(path, shaken(TINY))
    return ["--weights", str(path), "--segmenter", "none", "--device", "cpu", "--steps", "1"]


@functools.cache  # it holds the second in which it was made
def profile(space: str) -> bytes:
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[16:20] = space.ljust(4).encode()
    return bytes(data)


SHAPE = np.zeros(SIZE, np.uint8)
SHAPE[3:9, 4:15] = 255


def cut_out(hidden: int) -> np.ndarray:
    """(H, W, 4) uint8: dark inside SHAPE, `hidden` under the transparent pixels."""
    colours = np.where(SHAPE[..., None] > 0, levels(3), hidden).astype(np.uint8)
    return np.dstack([colours, SHAPE])


def palette(hidden: int) -> bytes:
    index = np.where(SHAPE > 0, 1 + levels(1)[..., 0] % 3, 0).astype(np.uint8)
    image = Image.fromarray(index)
    image.putpalette([hidden] * 3 + [10, 10, 10, 40, 30, 20, 60, 60, 60])
    return saved(image, "PNG", transparency=bytes([0, 255, 255, 255]))


def keyed(hidden: int, deep: bool) -> bytes:
    """A colour that is transparent, which nothing that is seen has."""
    colours = cut_out(hidden)[..., :3].astype(np.uint16 if deep else np.uint8) * (200 if deep else 1)
    key = (hidden, 1, 2)
    colours[SHAPE == 0] = key
    return png_of(colours, (b"tRNS", struct.pack(">HHH", *key)))


def saved(image: Image.Image, kind: str, **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def tiff(array: np.ndarray, **more: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **more)
    return buffer.getvalue()


CUT_OUTS = {
    "rgba.webp": lambda hidden: saved(Image.fromarray(cut_out(hidden)), "WEBP", lossless=True, exact=True),
    "palette.png": palette, "key.png": lambda hidden: keyed(hidden, False),
    "deep key.png": lambda hidden: keyed(hidden, True),
    "grey.png": lambda hidden: saved(Image.fromarray(cut_out(hidden)[..., [0, 3]]), "PNG"),
    "deep grey.png": lambda hidden: png_of(cut_out(hidden)[..., [0, 3]].astype(np.uint16) * 257),
    "planes.tif": lambda hidden: tiff(
        np.ascontiguousarray(cut_out(hidden).transpose(2, 0, 1)), photometric="rgb", planarconfig="separate",
        extrasamples=["unassalpha"],
    ),
    "big.tif": lambda hidden: tiff(
        cut_out(hidden).astype(np.uint16) * 257, photometric="rgb", extrasamples=["unassalpha"], bigtiff=True
    ),
    "v4.bmp": lambda hidden: encode_bmp_alpha(cut_out(hidden)),
}  # fmt: skip


@pytest.mark.parametrize("name", CUT_OUTS)
def test_what_a_file_hides_changes_nothing_that_is_seen(tmp_path, options, name, capsys):
    results, exposures = [], []
    for hidden in (0, 255):
        path = tmp_path / str(hidden) / name
        path.parent.mkdir()
        path.write_bytes(CUT_OUTS[name](hidden))
        assert main(["enhance", str(path), "--output", str(path.parent / "out"), *options]) == 0
        exposures.append(json.loads(capsys.readouterr().out)["exposure"])
        made = read_image(path.parent / "out" / name).pixels
        assert np.array_equal(made[3].numpy() > 0, SHAPE > 0)
        results.append(made[:3, torch.from_numpy(SHAPE > 0)])
    assert exposures[0] == exposures[1] and torch.equal(*results)


@pytest.mark.parametrize("space", ["GRAY", "RGB"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_with_alpha_stays_grey_and_keeps_its_profile(tmp_path, suffix, bits, space):
    """Before: RGBA without the profile, so that viewers showed other tones."""
    values, path, icc = levels(2, bits), tmp_path / f"a{suffix}", profile(space)
    if suffix == ".png":
        from zlib import compress

        path.write_bytes(png_of(values, (b"iCCP", b"p\0\0" + compress(icc))))
    else:
        path.write_bytes(tiff(values, photometric="minisblack", planarconfig="contig", iccprofile=icc,
                              extrasamples=["unassalpha"]))  # fmt: skip
    again = written_again(path)
    picture = read_image(again)
    assert picture.grey and picture.icc_profile == icc and picture.bit_depth == bits
    assert torch.equal(picture.pixels, read_image(path).pixels)
    seen = (picture.pixels[[0, 3]] * (2**bits - 1)).round().permute(1, 2, 0).numpy()
    assert np.array_equal(seen, values)
    # A second opinion on the file:
    found = np.asarray(Image.open(again)) if suffix == ".png" else tifffile.imread(again)
    assert np.array_equal(found, values if (suffix, bits) != (".png", 16) else values[..., [0, 0, 0, 1]] >> 8)


@pytest.mark.parametrize(("mode", "space"), [("L", "RGB"), ("L", "GRAY"), ("RGB", "RGB")])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_profiles_of_grey_pictures(tmp_path, suffix, mode, space):
    Image.fromarray(levels()).convert(mode).save(tmp_path / f"a{suffix}", icc_profile=profile(space))
    assert read_image(written_again(tmp_path / f"a{suffix}")).icc_profile == profile(space)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_bigtiff_comes_back_as_a_tiff_that_can_be_read(tmp_path, channels, kind):
    """Before, the result had a header that no program could read, or the file was refused in FFmpeg's words."""
    values = levels(channels, 8 * np.dtype(kind).itemsize)
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    photometric = "minisblack" if channels == 1 else "rgb"
    data = tiff(values.squeeze(), photometric=photometric, bigtiff=True, description="night", resolution=(300, 150),
                resolutionunit="INCH", extratags=[(271, 2, 0, "Camera", True)], byteorder="<", **extra)  # fmt: skip
    (tmp_path / "a.tif").write_bytes(data)
    again = written_again(tmp_path / "a.tif")
    assert np.array_equal(tifffile.imread(again).reshape(values.shape), values)
    with Image.open(again) as image:
        assert (image.tag_v2[270], image.tag_v2[271], image.info["dpi"]) == ("night", "Camera", (300, 150))


def test_a_bigtiff_that_nothing_reads_is_refused_in_words(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(levels(), photometric="rgb", bigtiff=True, byteorder=">"))
    with pytest.raises(ImageFileError, match=r"a\.tif.*BigTIFF in big-endian"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_channel_that_is_no_alpha_is_not_taken_for_one(tmp_path, bits, channels):
    """Programs store selections as further channels."""
    from tests.files_by_hand import packed, tiff_of

    values = np.random.default_rng(0).integers(0, 2**bits // 2, (*SIZE, channels + 1)).astype(np.uint16)
    values[..., -1] = 0  # as alpha, it would hide everything
    if bits == 12:
        data = tiff_of(packed(values, bits), bits, channels + 1, (338, 3, 0))
    else:
        photometric = "rgb" if channels == 3 else "minisblack"
        data = tiff(values.astype(np.uint8 if bits == 8 else np.uint16), photometric=photometric,
                    planarconfig="contig", extrasamples=["unspecified"])  # fmt: skip
    (tmp_path / "a.tif").write_bytes(data)
    picture = read_image(tmp_path / "a.tif")
    assert len(picture.pixels) == 3 and picture.metadata.left_out == ("1 extra channel of the file",)
    assert np.array_equal((picture.pixels[:channels] * (2**bits - 1)).round().permute(1, 2, 0), values[..., :-1])


PARTS = {
    "seal.png": (lambda: png_of(levels(), (b"caBX", b"seal"), (b"sBIT", b"\5\5\5")), ["Content Credentials (C2PA)"]),
    "scale.png": (lambda: png_of(levels(), (b"oFFs", bytes(9)), (b"pCAL", b"x")), ["chunks oFFs, pCAL"]),
    "seal.jpg": (lambda: segmented((0xEB, b"JP\0\0c2pa")), ["Content Credentials (C2PA)"]),
    "heat.jpg": (lambda: segmented((0xE1, b"FLIR\0x"), (0xE4, b"maker")), ["segments APP1, APP4"]),
    "map.tif": (
        lambda: tiff(levels(), photometric="rgb", extratags=[(33550, 12, 3, (1.0, 1.0, 0.0), True)]), ["tag 33550"]
    ),
    "layers.tif": (
        lambda: tiff(levels(), photometric="rgb", extratags=[(37724, 1, 4, b"Adob", True), (700, 1, 3, b"<x>", True)]),
        ["tag 37724"],
    ),
}  # fmt: skip


def segmented(*added: jpeg.Segment) -> bytes:
    return jpeg.with_segments(saved(Image.fromarray(levels()), "JPEG", comment=b"kept"), b"", b"", list(added))


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_are_not_carried_over_are_named_in_the_line_of_json(tmp_path, options, name, capsys):
    make, told = PARTS[name]
    (tmp_path / name).write_bytes(make())
    assert main(["enhance", str(tmp_path / name), "--output", str(tmp_path / "out"), *options]) == 0
    left_out = json.loads(capsys.readouterr().out)["left_out"]
    assert len(left_out) == len(told) and all(word in line for word, line in zip(told, left_out, strict=True))


PLAIN = {
    "a.png": lambda: saved(Image.fromarray(levels()), "PNG", icc_profile=profile("RGB"), dpi=(300, 300)),
    "b.jpg": lambda: segmented((0xED, b"Photoshop 3.0\0"), (0xEE, b"Adobe\0d\0\0\0\0"), (0xE1, jpeg.LONG_XMP + b"x")),
    "c.tif": lambda: saved(Image.fromarray(levels()), "TIFF", compression="tiff_lzw", dpi=(72, 72), software="mine"),
    "d.png": lambda: png_of(levels(3, 16), (b"tIME", bytes(7)), (b"bKGD", bytes(6)), (b"sRGB", b"\0")),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_ordinary_files_leave_nothing_out(tmp_path, name):
    (tmp_path / name).write_bytes(PLAIN[name]())
    assert read_image(tmp_path / name).metadata.left_out == ()
    check_fits(tmp_path / name, read_image(tmp_path / name))


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "eXIf by text"])
def test_what_a_png_says_in_other_chunks_comes_back(tmp_path, kind):
    """Texts in other languages, packed ones, and EXIF as older programs wrote it."""
    from zlib import compress

    exif = Image.Exif()
    exif[271] = "Camera"
    hexed = exif.tobytes().hex().encode()
    body = {
        "zTXt": (b"zTXt", b"parameters\0\0" + compress(b"a lake at night")),
        "iTXt": (b"iTXt", b"prompt\0\1\0de\0Eingabe\0" + compress("See bei Nacht: \u00e4".encode())),
        "eXIf by text": (b"tEXt", b"Raw profile type exif\0\nexif\n%8d\n" % (len(hexed) // 2) + hexed + b"\n"),
    }[kind]
    (tmp_path / "a.png").write_bytes(png_of(levels(), body))
    again = written_again(tmp_path / "a.png")
    if kind != "eXIf by text":
        assert body in list(png.chunks(again.read_bytes()))
    else:
        with Image.open(again) as image:
            assert image.getexif()[271] == "Camera"


@pytest.mark.parametrize("name", ["white.tif", "deep.png", "palette.png", "soft.png"])
def test_masks_of_other_kinds_with_alpha(tmp_path, options, name):
    """Everything is white, and what counts is alpha."""
    alpha, white = SHAPE, np.full(SIZE, 255, np.uint8)
    data = {
        "white.tif": lambda: tiff(np.dstack([white, alpha]), photometric="minisblack", planarconfig="contig",
                                  extrasamples=["unassalpha"]),
        "deep.png": lambda: png_of(np.dstack([white] * 3 + [alpha]).astype(np.uint16) * 257),
        "palette.png": lambda: palette_mask(alpha),
        "soft.png": lambda: saved(Image.fromarray(np.dstack([white, alpha // 2])), "PNG"),
    }[name]()  # fmt: skip
    (tmp_path / name).write_bytes(data)
    Image.fromarray(levels()).save(tmp_path / "a.png")
    command = ["enhance", str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), "--mask", str(tmp_path / name)]
    assert main([*command, *options]) == 0
    before, after = (read_image(tmp_path / path).pixels for path in ("a.png", "out/a.png"))
    changed = (before != after).any(0).numpy()
    assert changed[SHAPE > 0].any() and not changed[SHAPE == 0].any()


def palette_mask(alpha: np.ndarray) -> bytes:
    image = Image.fromarray((alpha > 0).astype(np.uint8))
    image.putpalette([255, 255, 255] * 2)
    return saved(image, "PNG", transparency=bytes([0, 255]))
