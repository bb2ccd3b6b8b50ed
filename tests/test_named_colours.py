"""HEIC and AVIF that name their colours by numbers (nclx) keep their gamut, and grey ones stay grey."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from jores.files import icc
from jores.files.pictures import ImageFileError, read_image, write_image
from jores.imaging.srgb import decode_srgb, encode_srgb

P3_TO_XYZ = [[0.51512, 0.2412, -0.00105], [0.29198, 0.69225, 0.04189], [0.1571, 0.06657, 0.78407]]  # as Apple's
COLOURS = np.array([[[200, 30, 20]] * 24, [[20, 180, 40]] * 24, [[40, 30, 190]] * 24, [[90, 90, 90]] * 24], np.uint8)


def saved(path: Path, levels: np.ndarray, primaries: int, transfer: int, profile: bytes | None = None) -> Path:
    image, own = Image.fromarray(levels), {"icc_profile": profile} if profile else {}
    if path.suffix == ".heic":
        made = pytest.importorskip("pillow_heif").from_pillow(image)
        coded = {"color_primaries": primaries, "transfer_characteristics": transfer, "matrix_coefficients": 6}
        made.save(path, quality=-1, chroma=444, full_range_flag=1, **coded, **own)
        return path
    if not features.check("avif"):
        pytest.skip("this Pillow knows no AVIF")
    image.save(path, quality=100, subsampling="4:4:4" if image.mode.startswith("RGB") else "4:0:0", **own)
    data = path.read_bytes()
    at = data.find(b"colrnclx") + 8
    path.write_bytes(data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :] if at > 8 else data)
    return path


def seen(path: Path) -> np.ndarray:
    """The colours of a file as a viewer shows them: linear light of sRGB, also outside of it."""
    with Image.open(path) as image:
        values = decode_srgb(np.asarray(image.convert("RGB"))[:, 5] / 255.0)
        profile = image.info.get("icc_profile")
    if profile is None:
        return values
    core = ImageCms.getOpenProfile(io.BytesIO(profile)).profile
    srgb = ImageCms.createProfile("sRGB")
    matrices = [
        np.array([getattr(p, name)[0] for name in ("red_colorant", "green_colorant", "blue_colorant")])
        for p in (core, srgb)
    ]  # fmt: skip
    return values @ matrices[0] @ np.linalg.inv(matrices[1])


@pytest.mark.parametrize("name", ["a.heic", "a.avif"])
@pytest.mark.parametrize("primaries", [1, 2, 9, 12])
def test_the_gamut_comes_back(tmp_path, name, primaries):
    """Before: Display P3 and BT.2020 were shown as sRGB, paler than they are."""
    path = saved(tmp_path / name, COLOURS.repeat(6, 0), primaries, 13)
    picture = read_image(path)
    write_image(tmp_path / "b.tif", picture)
    shown, plain = seen(tmp_path / "b.tif")[3::6], decode_srgb(COLOURS[:, 0] / 255.0)
    assert (picture.icc_profile is None) == (primaries < 3)
    p3 = plain @ np.array(P3_TO_XYZ) @ np.linalg.inv(srgb_to_xyz())
    if primaries == 9:
        assert shown[0, 0] > plain[0, 0] + 0.1 and shown[1, 0] < -0.05  # outside of sRGB
        assert shown[3] == pytest.approx(plain[3], abs=0.01)  # grey stays grey
    else:
        assert np.abs(shown - (p3 if primaries == 12 else plain)).max() < 0.02


def srgb_to_xyz() -> np.ndarray:
    core = ImageCms.createProfile("sRGB")
    return np.array([getattr(core, name)[0] for name in ("red_colorant", "green_colorant", "blue_colorant")])


@pytest.mark.parametrize("primaries", [4, 5, 6, 7, 8, 9, 11, 12, 22])
def test_profiles_are_ones_that_others_read(primaries):
    data = icc.profile_of(primaries)
    assert data is not None and len(data) == int.from_bytes(data[:4], "big") and len(data) % 4 == 0
    found = ImageCms.getOpenProfile(io.BytesIO(data))
    columns = [getattr(found.profile, f"{name}_colorant")[0] for name in ("red", "green", "blue")]
    assert np.sum(columns, 0) == pytest.approx([0.9642, 1, 0.8249], abs=1e-3)  # white is white
    assert ImageCms.getProfileDescription(found).strip()
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    back = ImageCms.profileToProfile(grey, found, ImageCms.createProfile("sRGB"))
    assert back is not None and np.abs(np.asarray(back).astype(int) - 100).max() <= 1  # and the tone curve is sRGB's
    if primaries == 12:
        assert np.abs(np.array(columns) - P3_TO_XYZ).max() < 2e-4


@pytest.mark.parametrize("name", ["a.heic", "a.avif"])
def test_a_profile_goes_before_the_numbers(tmp_path, name):
    own = icc.profile_of(9)
    assert read_image(saved(tmp_path / name, COLOURS.repeat(6, 0), 12, 13, own)).icc_profile == own


@pytest.mark.parametrize("name", ["a.heic", "a.avif"])
def test_other_tone_curves_and_numbers(tmp_path, name):
    level = np.full((24, 24, 3), 60, np.uint8)
    linear = read_image(saved(tmp_path / name, level, 1, 8))
    assert float(linear.pixels.mean()) == pytest.approx(float(encode_srgb(np.array(60 / 255))), abs=0.01)
    with pytest.raises(ImageFileError, match=f"{name}.*HDR"):
        read_image(saved(tmp_path / name, level, 9, 16))
    told = read_image(saved(tmp_path / name, level, 10, 13)).metadata.left_out
    assert told == ("its colour primaries (number 10)",)


@pytest.mark.parametrize(("name", "alpha"), [("a.heic", False), ("a.avif", False), ("a.avif", True)])
@pytest.mark.parametrize("primaries", [1, 12])
def test_grey_stays_grey(tmp_path, name, alpha, primaries):
    grey = np.linspace(0, 120, 24 * 24).reshape(24, 24, 1).astype(np.uint8)
    levels = np.dstack([grey, 255 - grey]) if alpha else grey[..., 0]
    picture = read_image(saved(tmp_path / name, levels, primaries, 13))
    assert picture.grey and picture.icc_profile is None and picture.pixels.shape[0] == (4 if alpha else 3)
    write_image(tmp_path / "b.tif", picture)
    with Image.open(tmp_path / "b.tif") as found:
        assert found.mode == ("LA" if alpha else "L")
        assert np.abs(np.asarray(found).astype(int) - levels.astype(int)).max() <= 3


def test_colour_in_front_of_grey_alpha_stays_colour(tmp_path):
    levels = np.dstack([COLOURS.repeat(6, 0), np.full((24, 24), 90, np.uint8)])
    assert not read_image(saved(tmp_path / "a.avif", levels, 1, 13)).grey
