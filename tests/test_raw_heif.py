"""Camera raw, HEIC and AVIF: read where their libraries are, and a clear word where they are not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, features

from jores.checkpoint import save_bundle
from jores.cli import main
from jores.files.pictures import ImageFileError, read_image, write_image
from jores.imaging.srgb import decode_srgb
from tests.dng import write_dng
from tests.tiny import TINY, shaken

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_bundle(path, shaken(TINY))
    return ["--weights", str(path), "--segmenter", "none", "--device", "cpu", "--steps", "1"]


def ramp(bits: int = 16) -> np.ndarray:
    values = np.linspace(0, 2**bits - 1, 32 * 48 * 3).reshape(32, 48, 3)
    return values.astype(np.uint16 if bits > 8 else np.uint8)


def camera(orientation: int = 1) -> Image.Exif:
    block = Image.Exif()
    block[ExifTags.Base.Make], block[ExifTags.Base.Orientation] = "Camera", orientation
    inner = block.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = 48, 32
    return block


@pytest.mark.parametrize("light", [0.01, 0.05, 0.4])
@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_raw_light_is_linear_and_of_the_cameras_white(tmp_path, light, orientation):
    pytest.importorskip("rawpy")
    write_dng(tmp_path / "a.dng", light, orientation=orientation)
    found = read_image(tmp_path / "a.dng")
    assert found.bit_depth == 16
    assert found.pixels.shape == ((3, 64, 48) if orientation == 6 else (3, 48, 64))
    inner = decode_srgb(found.pixels[:, 8:-8, 8:-8]).mean((1, 2))
    assert inner.tolist() == pytest.approx([light] * 3, rel=0.03)  # grey, and not brightened
    write_image(tmp_path / "b.tif", found)
    again = Image.Exif()
    again.load(read_image(tmp_path / "b.tif").exif)
    assert again[ExifTags.Base.Model] == "Camera" and again.get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("bits", [8, 16])
def test_heic_in_its_own_depth_and_upright(tmp_path, bits, orientation):
    heif = pytest.importorskip("pillow_heif")
    mode = "RGB;16" if bits == 16 else "RGB"
    made = heif.from_bytes(mode=mode, size=(48, 32), data=ramp(bits).tobytes())
    made.save(tmp_path / "a.heic", quality=-1, chroma=444, exif=camera(orientation).tobytes())
    found = read_image(tmp_path / "a.heic")
    assert found.bit_depth == bits
    turned = np.rot90(ramp(bits), -1) if orientation == 6 else ramp(bits)
    assert found.pixels.shape[1:] == turned.shape[:2]
    assert np.abs(found.pixels.permute(1, 2, 0).numpy() - turned / (2**bits - 1)).mean() < 0.01
    if bits == 16:
        assert len(found.pixels.unique()) > 512  # ten bits
    block = Image.Exif()
    block.load(found.exif)
    assert block[ExifTags.Base.Make] == "Camera" and block.get(ExifTags.Base.Orientation, 1) == 1
    assert block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] == found.pixels.shape[2]


@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize("alpha", [False, True])
def test_avif_upright_with_its_alpha(tmp_path, orientation, alpha):
    if not features.check("avif"):
        pytest.skip("this Pillow knows no AVIF")
    image = Image.fromarray(ramp(8))
    if alpha:
        image.putalpha(90)
    image.save(tmp_path / "a.avif", quality=95, exif=camera(orientation))
    found = read_image(tmp_path / "a.avif")
    assert found.pixels.shape == (4 if alpha else 3, *((32, 48) if orientation == 1 else (48, 32)))
    turned = np.rot90(ramp(8), {1: 0, 6: -1, 8: 1}[orientation]) / 255
    assert np.abs(found.pixels[:3].permute(1, 2, 0).numpy() - turned).mean() < 0.02


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.jpg"])
def test_heic_by_its_content(tmp_path, name):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(ramp(8))).save(tmp_path / "real.heic", quality=90)
    (tmp_path / "real.heic").rename(tmp_path / name)
    assert read_image(tmp_path / name).pixels.shape == (3, 32, 48)


def test_a_folder_with_all_of_them(tmp_path, options, capsys):
    pytest.importorskip("rawpy")
    heif = pytest.importorskip("pillow_heif")
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_dng(folder / "IMG_1.DNG", 0.02)
    heif.from_pillow(Image.fromarray(ramp(8) // 8)).save(folder / "IMG_1.heic", quality=90, exif=camera().tobytes())
    Image.fromarray(ramp(8)).save(folder / "IMG_1.jpg")
    (folder / "IMG_1.gif").touch()
    assert main(["enhance", str(folder), "--output", str(out), *options]) == 0
    captured = capsys.readouterr()
    made = sorted(Path(json.loads(line)["output"]).name for line in captured.out.splitlines())
    assert made == sorted(p.name for p in out.iterdir()) == ["IMG_1.DNG.tif", "IMG_1.heic.tif", "IMG_1.jpg"]
    assert tifffile.imread(out / "IMG_1.DNG.tif").dtype == np.uint16
    assert "1 .gif" in captured.err
    assert main(["enhance", str(folder), "--output", str(out), "--resume", *options]) == 0


@pytest.mark.parametrize("name", ["a.dng", "a.NEF", "a.heic"])
def test_damaged_ones_are_named(tmp_path, name):
    pytest.importorskip("rawpy")
    pytest.importorskip("pillow_heif")
    for data in (b"", b"no picture at all", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), b"II*\0" + bytes(60)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageFileError, match=name):
            read_image(tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "library"), [("b.CR2", "rawpy"), ("a.heic", "pillow_heif")])
def test_a_clear_word_where_the_library_is_missing(tmp_path, name, library, options):
    """Named, such a file fails; in a folder it is passed over, and the summary says what to install."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    Image.fromarray(ramp(8)).save(tmp_path / "in" / "z.png")
    program = (
        f"import sys; sys.modules[{library!r}] = None; from jores.cli import main; "
        "options = sys.argv[3:]; "
        "a = main(['enhance', sys.argv[1], '--output', sys.argv[2] + '1', *options]); "
        f"b = main(['enhance', sys.argv[1] + '/{name}', '--output', sys.argv[2] + '2', *options]); "
        "sys.exit(10 * a + b)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "in"), str(tmp_path / "out"), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    wanted = f"pip install {library.replace('_', '-')}"
    assert done.returncode == 1, done.stderr
    first, second = (line for line in done.stderr.splitlines() if wanted in line)
    assert first.startswith("jores: skipped in the folders") and Path(name).suffix.lower() in first
    assert name in second
