from __future__ import annotations

import io
import struct
import subprocess
import sys
import textwrap
import zlib
from functools import cache
from pathlib import Path, PurePath

import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps

from jores.commands.enhance import _summary
from jores.files.pictures import ImageFileError, Picture, find_images, read_image, write_image

ROOT = Path(__file__).resolve().parents[1]


def random_levels(channels: int, bits: int, size: tuple[int, int] = (19, 30)) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 2**bits, (*size, channels), dtype=np.uint16)


def to_levels(picture: Picture, bits: int) -> np.ndarray:
    return (picture.pixels * (2**bits - 1)).round().permute(1, 2, 0).numpy().astype(np.uint16)


@cache  # Little CMS writes the time into it
def profile(space: str = "RGB") -> bytes:
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[16:20] = space.ljust(4).encode()
    return bytes(data)


def camera_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.125
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("size", [(1, 1), (19, 30)])
def test_lossless_formats_keep_every_level_and_the_metadata(tmp_path, channels, suffix, bits, size):
    levels = random_levels(channels, bits, size)
    pixels = torch.from_numpy(levels.astype(np.float32) / (2**bits - 1)).permute(2, 0, 1)
    icc = profile("GRAY" if channels == 1 else "RGB")
    picture = Picture(pixels.expand(max(channels, 3), -1, -1), bits, channels == 1, icc, camera_exif(1).tobytes())
    path = tmp_path / f"picture{suffix}"
    write_image(path, picture)
    back = read_image(path)

    assert (back.bit_depth, back.grey, back.icc_profile) == (bits, channels == 1, icc)
    assert np.array_equal(to_levels(back, bits), np.broadcast_to(levels, (*size, max(channels, 3))))
    exif = Image.Exif()
    exif.load(back.exif)
    assert exif[ExifTags.Base.Make] == "Camera"
    assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 0.125
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    if suffix == ".tif":  # a second opinion on the file
        assert np.array_equal(tifffile.imread(path).reshape(levels.shape), levels)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_tiff_without_metadata(tmp_path, channels):
    levels = random_levels(channels, 16)
    pixels = torch.from_numpy(levels.astype(np.float32) / 65535).permute(2, 0, 1).expand(max(channels, 3), -1, -1)
    write_image(tmp_path / "a.tif", Picture(pixels, 16, channels == 1))
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif").reshape(levels.shape), levels)


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": True, "rowsperstrip": 4}])
def test_16_bit_tiff_of_other_programs(tmp_path, byteorder, options):
    levels = random_levels(3, 16)
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="rgb", byteorder=byteorder, **options)
    assert np.array_equal(to_levels(read_image(tmp_path / "a.tif"), 16), levels)


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_tiffs_whose_0_is_white(tmp_path, bits):
    levels = random_levels(1, bits).squeeze().astype(f"uint{bits}")
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="miniswhite")
    assert np.array_equal(to_levels(read_image(tmp_path / "a.tif"), bits)[..., 0], 2**bits - 1 - levels.astype(int))


def test_tiled_and_float_tiffs_are_refused_instead_of_garbled(tmp_path):
    tifffile.imwrite(tmp_path / "tiled.tif", random_levels(3, 16), photometric="rgb", tile=(16, 16))
    with pytest.raises(ImageFileError, match="tiled.tif.*strips"):
        read_image(tmp_path / "tiled.tif")
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((8, 8), np.float32))
    with pytest.raises(ImageFileError, match="float.tif.*floating-point"):
        read_image(tmp_path / "float.tif")


def test_16_bit_png_of_grey_with_alpha(tmp_path):
    levels = random_levels(2, 16, (5, 7))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 7, 5, 16, 4, 0, 0, 0)
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    (tmp_path / "la.png").write_bytes(data)
    back = read_image(tmp_path / "la.png")
    assert back.bit_depth == 16
    assert np.array_equal(to_levels(back, 16), levels[..., [0, 0, 0, 1]])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_exif_orientation_is_applied_once(tmp_path, orientation, suffix):
    corners = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 24), np.uint8))
    Image.fromarray(corners).save(tmp_path / f"in{suffix}", exif=camera_exif(orientation))
    Image.fromarray(corners).save(tmp_path / "reference.png", exif=camera_exif(orientation))
    with Image.open(tmp_path / "reference.png") as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored))
    first = read_image(tmp_path / f"in{suffix}")
    assert first.pixels.shape[1:] == upright.shape
    assert np.abs(to_levels(first, 8)[..., 0] - upright.astype(float)).max() <= 3
    write_image(tmp_path / f"out{suffix}", first)
    second = read_image(tmp_path / f"out{suffix}")
    assert (second.pixels - first.pixels).abs().max() < 0.02
    assert b"Camera" in second.exif


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [1, 3])
def test_exif_orientation_of_every_kind_of_tiff(tmp_path, bits, compression, channels):
    levels = random_levels(channels, bits).astype(f"uint{bits}")
    photometric = "rgb" if channels == 3 else "minisblack"
    turn = [(274, "H", 1, 6, True)]  # rotate clockwise to see it
    tifffile.imwrite(
        tmp_path / "a.tif", levels.squeeze(), photometric=photometric, compression=compression, extratags=turn
    )
    picture = read_image(tmp_path / "a.tif")
    assert np.array_equal(to_levels(picture, bits)[..., :channels], np.rot90(levels, -1))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_keep_profile_and_exif_and_stay_close(tmp_path, suffix):
    ramp = torch.linspace(0, 1, 40).expand(3, 30, 40)
    write_image(tmp_path / f"a{suffix}", Picture(ramp, 8, False, profile(), camera_exif(1).tobytes()))
    back = read_image(tmp_path / f"a{suffix}")
    assert (back.pixels - ramp).abs().max() < 0.03
    assert back.icc_profile == profile()
    assert b"Camera" in back.exif


def test_unusual_modes_become_rgb_or_rgba(tmp_path):
    base = Image.fromarray(random_levels(3, 8).astype(np.uint8))
    base.convert("P").save(tmp_path / "palette.png")
    base.convert("P").save(tmp_path / "clear.png", transparency=0)
    base.convert("1").save(tmp_path / "bits.png")
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "print.tif", icc_profile=profile("CMYK"))
    base.save(tmp_path / "plain.bmp")
    assert read_image(tmp_path / "palette.png").pixels.shape[0] == 3
    assert read_image(tmp_path / "clear.png").pixels.shape[0] == 4
    assert read_image(tmp_path / "bits.png").grey
    printed = read_image(tmp_path / "print.tif")
    assert printed.pixels.shape == (3, 8, 8) and printed.pixels.max() == 0 and printed.icc_profile is None
    assert np.array_equal(to_levels(read_image(tmp_path / "plain.bmp"), 8), np.asarray(base))


def test_levels_are_rounded_and_values_out_of_range_clipped(tmp_path):
    pixels = torch.tensor([-1.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 2.0]).expand(3, 1, 5)
    write_image(tmp_path / "a.png", Picture(pixels))
    assert np.asarray(Image.open(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 0, 1, 255, 255]


def test_errors_name_the_file(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(random_levels(3, 8, (64, 64)).astype(np.uint8)).save(whole, "PNG")
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:5000])
    (tmp_path / "text.jpg").write_text("not a picture")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "film.webp", save_all=True, append_images=frames[1:])
    Image.fromarray(random_levels(1, 8).astype(np.uint8).squeeze()).save(tmp_path / "huge.bmp")
    claims = (tmp_path / "huge.bmp").read_bytes()
    (tmp_path / "huge.bmp").write_bytes(claims[:18] + struct.pack("<ii", 12_000, 12_000) + claims[26:])
    reasons = {"cut.png": "truncated", "text.jpg": "not a PNG", "film.webp": "2 frames", "huge.bmp": "12000x12000"}
    for name, reason in reasons.items():
        with pytest.raises(ImageFileError, match=f"{name}.*{reason}"):
            read_image(tmp_path / name)
    with pytest.raises(ImageFileError, match="nowhere.png.*No such file"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageFileError, match="a.jpg.*transparency"):
        write_image(tmp_path / "a.jpg", Picture(torch.zeros(4, 2, 2)))
    with pytest.raises(ImageFileError, match="a.gif.*suffix"):
        write_image(tmp_path / "a.gif", Picture(torch.zeros(3, 2, 2)))


def test_find_images_sorts_folders_and_keeps_given_files(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "inner.png").mkdir()
    last = tmp_path / "b.PNG"
    assert find_images([last, tmp_path]) == [last, tmp_path / "a.jpg"]
    with pytest.raises(ImageFileError, match="inner.png: no picture"):
        find_images([tmp_path / "inner.png"])


def test_a_folder_of_thousands_is_listed_in_time_that_grows_with_it(tmp_path, monkeypatch):
    """Before: with its square, 10 seconds for 8000 files."""
    for number in range(200):
        (tmp_path / f"{number}.png").touch()
        (tmp_path / f"{number}.txt").touch()
        (tmp_path / f"{number}").mkdir()
    hashes, real = [], PurePath.__hash__
    monkeypatch.setattr(PurePath, "__hash__", lambda path: (hashes.append(1), real(path))[1])
    skipped = []
    assert len(find_images([tmp_path], skipped=skipped)) == 200
    listed = len(hashes)
    told = _summary([], 200, skipped)
    assert "200 .txt" in told and "200 folder(s)" in told
    assert 0 < listed < 10 * 600 and len(hashes) - listed < 10 * 600


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits there")
def test_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path):
    target = tmp_path / "a.png"
    write_image(target, Picture(torch.zeros(3, 4, 4)))
    before = target.read_bytes()
    program = """
        import resource, signal, sys, torch
        from jores.files.pictures import ImageFileError, Picture, write_image
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_image(sys.argv[1], Picture(torch.rand(3, 200, 200)))
        except ImageFileError as error:
            sys.exit(str(error))
    """
    run = [sys.executable, "-c", textwrap.dedent(program), str(target)]
    result = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "a.png: cannot be written: File too large" in result.stderr
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]
