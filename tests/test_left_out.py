"""Further pictures of a file are named in its line of JSON, or the file is refused by name; a film's frames, too."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from jores.cli import main
from jores.files.pictures import ImageFileError, read_image

QUICK = ["--segmenter", "none", "--steps", "1", "--device", "cpu"]


def pictures(count: int) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 60, (20, 32, 3)).astype(np.uint8)) for _ in range(count)]


def saved(path: Path, kind: str, count: int, **options: object) -> Path:
    first, *others = pictures(count)
    first.save(path, kind, save_all=True, append_images=others, **options)
    return path


def told(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["enhance", str(path), "--output", str(path.parent / "out"), *QUICK]) == 0
    return json.loads(capsys.readouterr().out)["left_out"]


@pytest.mark.parametrize("count", [2, 3])
def test_pictures_behind_a_jpeg_are_named(tmp_path, capsys, count):
    (line,) = told(saved(tmp_path / "a.jpg", "MPO", count), capsys)
    assert line.startswith(f"{count - 1} further picture")


def test_a_gain_map_is_named(tmp_path, capsys):
    path = saved(tmp_path / "a.jpg", "MPO", 2, comment=b'hdrgm:Version="1.0"')
    assert "gain map" in told(path, capsys)[0]


@pytest.mark.parametrize("brand", [b"mp42", b"isom", b"qt  "])
def test_the_film_of_a_motion_photo_is_named(tmp_path, capsys, brand):
    path, body = tmp_path / "a.jpg", io.BytesIO()
    pictures(1)[0].save(body, "JPEG")
    path.write_bytes(body.getvalue() + bytes((0, 0, 0, 24)) + b"ftyp" + brand + bytes(200))
    assert "motion photo" in told(path, capsys)[0]


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_reduced_copies_in_a_tiff_are_named(tmp_path, bits):
    path, kind = tmp_path / "a.tif", np.uint8 if bits == 8 else np.uint16
    tag = [(281, "H", 3, (4095,) * 3, True)] if bits == 12 else []
    with tifffile.TiffWriter(path) as file:
        file.write(np.full((32, 32, 3), 40, kind), photometric="rgb", subifds=2, extratags=tag)
        for side in (16, 8):
            file.write(np.full((side, side, 3), 40, kind), photometric="rgb", subfiletype=1)
    assert read_image(path).metadata.left_out == ("2 further pictures of the file",)


def test_an_ordinary_picture_leaves_nothing_out(tmp_path, capsys):
    path = tmp_path / "a.jpg"
    pictures(1)[0].save(path)
    assert told(path, capsys) == []


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF"])
def test_animations_and_pages_are_refused_by_name(tmp_path, kind):
    path = saved(tmp_path / f"a.{kind.lower()}", kind, 3)
    with pytest.raises(ImageFileError, match=f"a.{kind.lower()}.*(3 frames|not a)"):
        read_image(path)


def test_further_pictures_of_a_heic_are_named(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    made = heif.HeifFile()
    for picture in pictures(3):
        made.add_from_pillow(picture)
    made.save(tmp_path / "a.heic")
    assert read_image(tmp_path / "a.heic").metadata.left_out == ("2 further pictures of the file",)
