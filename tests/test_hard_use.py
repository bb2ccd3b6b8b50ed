"""Hard use: odd sizes, types and values of pictures, and files that are damaged in any way.

Everything here ends in one of two ways: a proper result, or a ValueError that names what is wrong. The examples are
drawn from fixed seeds, so that a run is repeatable.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, CheckpointError, load_bundle, save_bundle
from jores.cli import main
from jores.files.codecs import encode_png_16, encode_tiff
from jores.files.pictures import ImageFileError, read_image
from jores.nets.segmentation import SegmenterError
from jores.semantics import load_segmenter
from tests.flat import flat
from tests.tiny import TINY, shaken

pytestmark = pytest.mark.slow


def examples(count: int) -> settings:
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(
        max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=health
    )  # fmt: skip


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
FILLS = ("noise", "dark", "black", "white", "constant", "out of range", "nan", "inf")
NETS = {dtype: shaken(TINY, dtype) for dtype in (torch.float32, torch.bfloat16)}


def filled(fill: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    if fill in ("nan", "inf") and noise.numel():
        noise.view(-1)[seed % noise.numel()] = float(fill) * (-1) ** seed
    made = {
        "dark": noise * 0.1, "black": noise * 0, "white": noise * 0 + 1, "constant": noise * 0 + seed % 7 / 7,
        "out of range": noise * 4 - 1.5,
    }  # fmt: skip
    return made.get(fill, noise)


@st.composite
def pictures(draw) -> torch.Tensor:
    size = draw(st.integers(1, 97)), draw(st.integers(1, 97))
    batch, channels = draw(st.integers(0, 3)), draw(st.sampled_from((3, 3, 3, 4, 4, 1, 2, 5)))
    images = filled(draw(st.sampled_from(FILLS)), (batch, channels, *size), draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from((*FLOATS, torch.uint8)))
    return (images.nan_to_num().clamp(0, 1) * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)


@st.composite
def masks(draw, images: torch.Tensor) -> torch.Tensor | None:
    """None, a mask that fits, or one of another size, count or range."""
    if draw(st.booleans()):
        return None
    batch, _, height, width = images.shape
    shape = [draw(st.sampled_from((batch, 1))), 1, height, width]
    odd = draw(st.integers(0, 5))
    if odd < 4:
        shape[odd] += draw(st.integers(0, 1))
    made = filled(draw(st.sampled_from(("noise", "noise", "black", "white", "nan"))), tuple(shape), 5)
    return made.round() if draw(st.booleans()) else made


def fault(images: torch.Tensor, mask: torch.Tensor | None) -> str | None:
    """What the message must speak of; None where there must be a picture."""
    if images.shape[1] not in (3, 4):
        return "images must be"
    if not images.numel():
        return "no pixels"
    if not images.is_floating_point():
        return "torch.uint8"
    if not bool(torch.isfinite(images).all()):
        return "NaN or infinite"
    if mask is not None:
        if mask.shape[1:] != (1, *images.shape[2:]) or len(mask) not in (1, len(images)):
            return "mask is"
        if not bool(torch.isfinite(mask).all()):
            return "mask holds"
    return None


@given(st.data())
@examples(70)
def test_any_picture_gives_a_proper_result_or_a_clear_word(data):
    images = data.draw(pictures())
    mask = data.draw(masks(images))
    dials = {
        "feather": data.draw(st.sampled_from((0, 0, 1, 9, 300))), "shadows": data.draw(st.sampled_from((0.0, 1.0))),
        "colour_fidelity": data.draw(st.sampled_from((0.0, 1.0))), "strength": data.draw(st.sampled_from((1, 0.5, 0))),
        "exposure": data.draw(st.sampled_from((None, None, 1e-6, 1.0))),
    }  # fmt: skip
    nets = NETS[data.draw(st.sampled_from(tuple(NETS)))]
    before = [x.clone() for x in (images, mask) if x is not None]
    wrong = fault(images, mask)
    if wrong is not None:
        with pytest.raises(ValueError, match=wrong):
            flat(pipeline.enhance)(images, nets, steps=1, mask=mask, **dials)
    else:
        result = flat(pipeline.enhance)(images, nets, steps=1, mask=mask, **dials)
        check_result(result, images, mask, dials["strength"])
    for x, copy in zip((x for x in (images, mask) if x is not None), before, strict=True):
        assert torch.equal(x.view(torch.uint8), copy.view(torch.uint8))  # NaN is not equal to itself, its bytes are


def check_result(result: torch.Tensor, images: torch.Tensor, mask: torch.Tensor | None, strength: float) -> None:
    original = images.float()
    assert result.shape == images.shape and result.dtype == torch.float32 and bool(torch.isfinite(result).all())
    assert torch.equal(result[:, 3:], original[:, 3:])
    untouched = torch.full_like(original[:, :3], strength == 0).bool()
    if mask is not None:
        untouched |= mask == 0
    assert torch.equal(result[:, :3][untouched], original[:, :3][untouched])
    changed = result[:, :3][~untouched & (original[:, :3] >= 0) & (original[:, :3] <= 1)]
    assert not changed.numel() or 0 <= changed.min() <= changed.max() <= 1


@pytest.mark.parametrize("exposure", [0.0, -1.0, 1.5, float("nan"), torch.tensor([0.3]), torch.tensor([0.3, 2.0])])
def test_an_impossible_exposure_is_refused(exposure):
    with pytest.raises(ValueError, match="exposure must be"):
        flat(pipeline.enhance)(torch.rand(2, 3, 9, 9), NETS[torch.float32], exposure=exposure)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])  # worked on itself; converted first
def test_no_stage_changes_what_it_is_given(dtype):
    images, nets = torch.rand(2, 3, 33, 20).to(dtype) * 0.2, NETS[torch.float32]
    segmenter = load_segmenter(SHIPPED_SEGMENTER)
    maps = unchanged(pipeline.decompose, nets, images)
    light, exposure = torch.rand(2, 1, 33, 20), torch.tensor([0.3, 0.4])
    condition = unchanged(pipeline.adjust, nets, maps, exposure=exposure, denoise=0.5, illumination=light)
    prior = unchanged(pipeline.segment, segmenter, images)
    x0 = unchanged(flat(pipeline.sample), nets, condition, prior, low=images, steps=2, eta=0.5)
    finish = {"mask": torch.rand(2, 1, 33, 20).round(), "feather": 3, "shadows": 0.5, "colour_fidelity": 0.5}
    unchanged(flat(pipeline.finish), x0, images, **finish)
    unchanged(flat(pipeline.enhance), images, nets, segmenter, steps=2, exposure=exposure, **finish)


def unchanged(function, *args, **options):
    """The result of a call that must leave every tensor in its arguments as it was."""
    given_tensors = [t for value in (*args, *options.values()) for t in tensors_in(value)]
    copies = [t.clone() for t in given_tensors]
    result = function(*args, **options)
    assert all(torch.equal(a, b) for a, b in zip(given_tensors, copies, strict=True))
    return result


def tensors_in(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [t for item in value for t in tensors_in(item)]
    return [t for item in vars(value).values() for t in tensors_in(item)] if hasattr(value, "reflectance") else []


@st.composite
def damaged(draw, whole: bytes, start: int = 0) -> bytes:
    """`whole` after one to five accidents behind byte `start`."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        at = start + draw(st.integers(0, max(0, len(data) - start - 1)))
        length = draw(st.sampled_from((1, 1, 2, 4, 30)))
        kind = draw(st.sampled_from(("set", "set", "set", "flip", "cut", "repeat", "end")))
        if kind == "set":
            data[at : at + length] = bytes([draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)))]) * length
        elif kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        elif kind == "end" and draw(st.booleans()):
            del data[at:]
    return bytes(data)


def small_files() -> dict[str, bytes]:
    """One small valid file of every kind that there is a way of its own to read."""
    levels = np.random.default_rng(0).integers(0, 65536, (11, 14, 4), dtype=np.uint16)
    eight = (levels >> 8).astype(np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Camera", 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.125
    block = exif.tobytes()

    def saved(kind: str, image: Image.Image, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    rgb, clear = Image.fromarray(eight[..., :3]), Image.fromarray(eight)
    return {
        "rgb.png": saved("PNG", rgb, exif=block), "rgba.png": saved("PNG", clear),
        "la.png": saved("PNG", clear.convert("LA")),
        "palette.png": saved("PNG", rgb.convert("P"), transparency=3), "deep.png": encode_png_16(levels, block),
        "a.jpg": saved("JPEG", rgb, exif=block), "cmyk.jpg": saved("JPEG", rgb.convert("CMYK")),
        "a.webp": saved("WEBP", clear, exif=block), "a.bmp": saved("BMP", rgb),
        "a.tif": encode_tiff(eight, block), "deep.tif": encode_tiff(levels[..., :3].copy(), block),
        "pack.tif": saved("TIFF", rgb, compression="packbits"), "grey.tif": saved("TIFF", rgb.convert("L")),
    }  # fmt: skip


FILES = small_files()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_picture_is_read_or_refused_by_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    assert read_image(path).pixels.shape[0] in (3, 4)

    @given(damaged(FILES[name]))
    @examples(50)
    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            pixels = read_image(path).pixels
        except ImageFileError as error:
            assert str(path) in str(error)
        else:
            assert pixels.dtype == torch.float32 and pixels.shape[0] in (3, 4) and pixels.numel()
            assert 0 <= pixels.min() <= pixels.max() <= 1

    check()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("bundle") / "tiny.safetensors"
    save_bundle(path, shaken(TINY))
    return path.read_bytes()


def with_header(whole: bytes, header: dict) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + int.from_bytes(whole[:8], "little") :]


def header_of(whole: bytes) -> dict:
    return json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])


def loads_or_is_refused(path: Path) -> None:
    try:
        nets = load_bundle(path)
    except CheckpointError as error:
        assert str(path) in str(error)
        return
    image = torch.full((1, 3, 9, 9), 0.1)
    assert bool(torch.isfinite(flat(pipeline.enhance)(image, nets, steps=1)).all())


@given(data=st.data())
@examples(70)
def test_a_damaged_bundle_is_loaded_or_refused_by_name(tmp_path, bundle, data):
    end = 8 + int.from_bytes(bundle[:8], "little")
    if data.draw(st.booleans()):  # where it hurts: in the header
        broken = data.draw(damaged(bundle[:end])) + bundle[end:]
    else:
        broken = data.draw(damaged(bundle, data.draw(st.sampled_from((0, end)))))
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(broken)
    loads_or_is_refused(path)


ODD_VALUES = (None, 0, -1, 1, 3, 10**6, 10**12, 1.5, 1e300, "x", "", [], [1], [10**9] * 3, {}, {"a": 1}, True)


def places(value, path: tuple = ()) -> list[tuple]:
    """The path to everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path + (key,) for key, _ in items] + [p for key, item in items for p in places(item, (*path, key))]


def changed(value, path: tuple, new):
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return copy


@given(data=st.data())
@examples(70)
def test_a_bundle_with_an_odd_config_is_loaded_or_refused_by_name(tmp_path, bundle, data):
    header = header_of(bundle)
    config = json.loads(header["__metadata__"]["config"])
    config = changed(config, data.draw(st.sampled_from(places(config))), data.draw(st.sampled_from(ODD_VALUES)))
    header["__metadata__"]["config"] = json.dumps(config)
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(with_header(bundle, header))
    loads_or_is_refused(path)


def as_levels(path: Path) -> tuple[np.ndarray, int]:
    """Levels (H, W, C) as a file is read, and its bits."""
    picture = read_image(path)
    return (picture.pixels * (2**picture.bit_depth - 1)).round().permute(1, 2, 0).numpy(), picture.bit_depth


def test_files_of_every_kind_come_back_as_they_were_made(tmp_path, bundle, capsys):
    """Size, depth, grey and alpha; and where the mask is black every level, whatever dial is turned."""
    rng, folder = np.random.default_rng(0), tmp_path / "in"
    folder.mkdir()
    (tmp_path / "tiny.safetensors").write_bytes(bundle)
    levels = rng.integers(0, 40, (23, 31, 4), dtype=np.uint8)
    levels[..., 3] *= 6
    pictures = {
        "grey.png": Image.fromarray(levels[..., 0]), "grey alpha.png": Image.fromarray(levels).convert("LA"),
        "rgba.webp": Image.fromarray(levels), "rgb.bmp": Image.fromarray(levels[..., :3]),
        "grey.tif": Image.fromarray(levels[..., 0].astype(np.uint16) * 200), "palette.png":
        Image.fromarray(levels[..., :3]).convert("P"), "bits.png": Image.fromarray(levels[..., 0] > 20),
    }  # fmt: skip
    for name, image in pictures.items():
        image.save(folder / name, **({"lossless": True, "exact": True} if name.endswith("webp") else {}))
    (folder / "deep.png").write_bytes(encode_png_16(levels.astype(np.uint16) * 250))
    mask = np.zeros((23, 31), np.uint8)
    mask[5:20, 8:25] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "out"
    command = ["enhance", str(folder), "--output", str(out), "--weights", str(tmp_path / "tiny.safetensors")]
    command += ["--segmenter", "none", "--device", "cpu", "--steps", "1", "--mask", str(tmp_path / "mask.png")]
    assert main([*command, "--feather", "2", "--shadows", "0.5", "--colour-fidelity", "1"]) == 0
    for path in folder.iterdir():
        (before, depth), (after, depth_after) = as_levels(path), as_levels(out / path.name)
        assert (after.shape, depth_after) == (before.shape, depth), path.name
        assert read_image(path).grey == read_image(out / path.name).grey, path.name
        assert np.array_equal(after[..., 3:], before[..., 3:]), path.name
        if path.suffix != ".webp":  # written with loss
            assert np.array_equal(after[mask == 0], before[mask == 0]), path.name
        assert not np.array_equal(after[mask > 0], before[mask > 0]), path.name
    Image.fromarray(mask[:9]).save(tmp_path / "mask.png")
    assert main([*command, "--overwrite"]) == 1
    assert "mask.png: the mask is 31x9 (width x height), the picture 31x23" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint32, np.int32, np.float16])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_numbers_that_are_no_8_or_16_bit_levels_are_refused_or_read_in_full(tmp_path, kind, channels):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((9, 8, channels), kind).squeeze(), photometric="rgb" if channels == 3 else None)
    with pytest.raises(ImageFileError, match=re.escape(str(path))):
        read_image(path)


@given(data=st.data())
@examples(10)
def test_a_segmenter_with_an_odd_config_is_loaded_or_refused_by_name(tmp_path_factory, data):
    config = json.loads((SHIPPED_SEGMENTER / "config.json").read_text("utf-8"))
    sizes = [p for p in places(config) if p[0] not in ("id2label", "label2id")]
    text = json.dumps(changed(config, data.draw(st.sampled_from(sizes)), data.draw(st.sampled_from(ODD_VALUES))))
    if data.draw(st.integers(0, 3)) == 0:
        text = data.draw(damaged(text.encode())).decode("utf-8", "replace")
    folder = tmp_path_factory.mktemp("segmenter")
    (folder / "config.json").write_text(text, "utf-8")
    shutil.copy(SHIPPED_SEGMENTER / "model.safetensors", folder)
    try:
        segmenter = load_segmenter(folder)
    except SegmenterError as error:
        assert str(folder) in str(error)
    else:
        assert bool(torch.isfinite(segmenter(torch.rand(1, 3, 40, 30)).probabilities).all())
