"""Black bars beside a picture: found where there are some, no part of its exposure, and left as they are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jores import pipeline
from jores.conditions import Listener
from jores.imaging import bars
from jores.imaging.bars import inside_in_turn, inside_of
from jores.imaging.exposure import mean_luma
from jores.tiling.tiler import Tiler
from jores.video import enhance_frames
from tests.benchmarks import flicker
from tests.flat import flat
from tests.graphs import SHIPPED, run
from tests.tiny import Memory

INPUT = Path(__file__).parents[1] / "workflows" / "enhance_low_light.input.png"


@pytest.fixture(scope="module")
def picture():
    with Image.open(INPUT) as image:
        pixels = np.asarray(image.convert("RGB").resize((192, 128)))
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]


def barred(picture, above=20, left=0, level=0.0):
    """The picture between bars above and below, and left and right."""
    height, width = picture.shape[-2:]
    result = torch.full_like(picture, level)
    rows, columns = slice(above, height - above), slice(left, width - left)
    result[..., rows, columns] = picture[..., rows, columns]
    return result


def rectangle(inside):
    return inside.rows.start, inside.rows.stop, inside.columns.start, inside.columns.stop


@pytest.mark.parametrize(
    "above, left, level", [(20, 0, 0), (0, 24, 0), (16, 24, 0), (3, 0, 0), (20, 0, 2 / 255), (33, 0, 1 / 255)]
)
def test_bars_are_found_to_the_pixel(picture, above, left, level):
    height, width = picture.shape[-2:]
    found = inside_of(barred(picture, above, left, level))
    assert rectangle(found) == (above, height - above, left, width - left)


@pytest.mark.parametrize("quality", (60, 85))
def test_a_lossy_file_hides_no_bar(picture, quality):
    """Its blocks soil up to 16 lines beside an edge."""
    buffer = io.BytesIO()
    pixels = (barred(picture * 2)[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    read = np.asarray(Image.open(buffer)).astype(np.float32) / 255
    assert rectangle(inside_of(torch.from_numpy(read).permute(2, 0, 1)[None])) == (20, 108, 0, 192)


def without_bars():
    """Pictures that are black in part, and have no bars."""
    noise = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    sky, ramp, lamp = noise.clone(), noise.clone(), torch.zeros_like(noise)
    sky[..., :30, :] = 0
    ramp *= (torch.arange(96).sub(47.5).abs() < 24)[:, None] * torch.linspace(-0.2, 0.2, 96).clamp_min(0)[:, None]
    lamp[..., 40:60, 60:70] = 1
    even = {
        "nearly black": lamp * 0 + 1 / 255,
        "white": lamp * 0 + 1,
        "one pixel": noise[..., :1, :1],
        "two rows": noise[..., :2, :],
    }
    return {"nothing": noise, "a sky": sky, "a gradient": ramp, "a lamp": lamp, **even}


@pytest.mark.parametrize("name", without_bars())
def test_what_is_black_is_not_always_a_bar(name):
    image = without_bars()[name]
    assert inside_of(image).whole


@pytest.mark.parametrize("channels", (3, 4))
def test_a_picture_of_zeros_comes_back_as_it_is(nets, picture, channels):
    """Alone, beside another one, and as a frame; the next frame, hardly lighter, is lifted all the same."""
    zeros = torch.zeros(1, channels, *picture.shape[-2:])
    zeros[:, 3:] = 1
    other = torch.cat([picture, zeros[:, 3:]], 1)
    assert torch.equal(flat(pipeline.enhance)(zeros, nets, steps=1), zeros)
    result = flat(pipeline.enhance)(torch.cat([zeros, other]), nets, steps=0)
    assert torch.equal(result[:1], zeros) and float(result[1, :3].mean()) > 2 * float(picture.mean())
    dim = picture / 40
    assert inside_of(zeros).empty and inside_in_turn(inside_of(zeros), dim).whole


@pytest.mark.slow
def test_a_picture_between_bars_gets_the_light_that_it_gets_without(nets, picture):
    """Counted as part of the picture, they change it."""
    cut, light, proposals = picture[..., 20:108, :], [], []
    for image in (cut, barred(picture), barred(picture, level=3 / 255)):  # the last bars are not seen as such
        listener = Listener()
        result = flat(pipeline.enhance)(image, nets, steps=1, keeper=listener)
        light.append(float(mean_luma(result if image is cut else result[..., 20:108, :])))
        proposals.append(listener.exposure)
    alone, framed, unaware = proposals
    assert abs(framed - alone) < 0.05 * alone < abs(unaware - alone), proposals
    assert abs(light[1] - light[0]) < 0.05 * light[0], light


@pytest.mark.parametrize("level", (0.0, 1 / 255))
def test_bars_come_back_bit_by_bit(nets, picture, level):
    for image in (barred(picture, level=level), torch.cat([barred(picture, level=level), picture[:, :1] * 0 + 1], 1)):
        result = flat(pipeline.enhance)(image, nets, steps=1)
        assert torch.equal(result[..., :20, :], image[..., :20, :]) and torch.equal(
            result[..., 108:, :], image[..., 108:, :]
        )
        assert result.shape == image.shape and float(result[:, :3, 20:108].mean()) > 2 * float(picture.mean())


@pytest.mark.parametrize("options", (
    {"steps": 0}, {"steps": 0, "shadows": 0.5, "colour_fidelity": 0.5}, {"steps": 1}, {"steps": 1, "exposure": 0.4},
    {"steps": 1, "tile": 64},
))  # fmt: skip
def test_an_enhancement_looks_for_the_bars_of_each_picture_once(nets, segmenter, picture, options, monkeypatch):
    """Never again in what is filled, at the working size, or for the segmenter."""
    seen = []
    monkeypatch.setattr(bars, "inside_of", lambda image: seen.append(image.shape[-2:]) or inside_of(image))
    for images in (barred(picture), picture, torch.cat([picture, barred(picture)]), pierced(barred(picture))):
        seen.clear()
        flat(pipeline.enhance)(images, nets, segmenter, working_size=96, **options)
        assert seen == [images.shape[-2:]] * len(images)


def pierced(image, alpha=0.5):
    """The picture with a transparent pixel, for which no bars are looked for."""
    whole = torch.ones_like(image[:, :1])
    whole[..., image.shape[-2] // 2, 1] = alpha
    return torch.cat([image, whole], 1)


@pytest.mark.parametrize("tile", (0, 96))
@pytest.mark.parametrize("alpha", (0.0, 0.5))
def test_beside_a_transparent_pixel_bars_are_dark_parts_of_the_picture(nets, picture, alpha, tile):
    """The picture's colours are not painted over them."""
    result = flat(pipeline.enhance)(pierced(barred(picture), alpha), nets, steps=0, tile=tile)[:, :3]
    for rows in (slice(0, 18), slice(110, 128)):
        assert result[..., rows, :].mean() < 0.25 * result[..., 20:108, :].mean()


@pytest.mark.parametrize("change", (lambda x: x, pierced))
def test_stage_by_stage_gives_the_same(nets, segmenter, picture, change):
    image, keeper = change(barred(picture)), Memory()
    condition = pipeline.adjust(nets, pipeline.decompose(nets, image))
    x0 = pipeline.undiffused(condition, Tiler(), image)
    assert torch.equal(pipeline.finish(x0, image), flat(pipeline.enhance)(image, nets, steps=0))
    flat(pipeline.enhance)(image, nets, segmenter, steps=1, keeper=keeper)
    (prior,) = (made for (stage, *_), made in keeper.values.items() if stage == "prior")
    assert torch.equal(pipeline.segment(segmenter, image, nets).probabilities, prior.probabilities)


@pytest.mark.slow
def test_pictures_of_a_batch_have_bars_of_their_own(nets, picture):
    batch = torch.cat([picture, barred(picture), barred(picture, 0, 24)])
    result = flat(pipeline.enhance)(batch, nets, steps=0)
    for i, one in enumerate(batch.split(1)):
        torch.testing.assert_close(result[i : i + 1], flat(pipeline.enhance)(one, nets, steps=0), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_bars_of_a_clip_stay_through_the_dark_and_under_subtitles(nets):
    dark = flicker.make_clips((64, 96), 6, 3)["static"].dark
    frames = [barred(one, 10) for one in dark.split(1)]
    frames[2][..., 56:60, 30:60] = 1  # a subtitle in the lower bar
    frames[3] = frames[3] * 0  # black
    frames[4][..., 10:13, :] = 0  # the sky below the upper bar is black, too
    inside = None
    for frame in frames:
        inside = inside_in_turn(inside, frame)
        assert rectangle(inside) == (10, 54, 0, 96)
    assert inside_of(frames[4]).whole  # by itself
    frames[3] = frames[2].clone()
    for frame, result in zip(frames, flat(enhance_frames)(frames, nets, steps=1), strict=True):
        assert torch.equal(result[..., :10, :], frame[..., :10, :]) and torch.equal(
            result[..., 54:, :], frame[..., 54:, :]
        )
        assert float(result[..., 30:54, :].mean()) > 1.5 * float(frame[..., 30:54, :].mean())
    assert inside_in_turn(inside, dark[:1]).whole  # another film without bars


def unlike(picture):
    """Pictures (1, 4, H, W): opaque, between bars, transparent in places, and of zeros."""
    alpha = torch.ones_like(picture[:, :1])
    cut_out = alpha.clone()
    cut_out[..., :40, 30:90] = 0
    pairs = ((picture, alpha), (barred(picture), alpha), (picture, cut_out), (picture * 0, alpha))
    return [torch.cat(pair, 1) for pair in pairs]


@pytest.mark.parametrize("order", (slice(None), slice(None, None, -1), slice(2, None), slice(2)))
def test_stage_by_stage_each_picture_of_a_batch_gets_the_light_that_it_gets_alone(pack, picture, order):
    """Whether the first one has transparent pixels or bars, another one, or none."""
    images = [one.movedim(1, -1) for one in unlike(picture)[order]]
    _model, nets, _vae = run(pack, "JoReSLoadModel", model_name=SHIPPED)
    made = []
    for image in (torch.cat(images), *images):
        maps = run(pack, "JoReSDecompose", nets=nets, image=image)[0]
        made.append(run(pack, "JoReSAdjust", nets=nets, retinex=maps, exposure=0.0, denoise=1.0)[0].condition)
    together, *alone = made
    assert [frame.exposure.item() for frame in alone] == together.exposure.tolist()
    assert all(torch.equal(together.picture[i], frame.picture[0]) for i, frame in enumerate(alone))
