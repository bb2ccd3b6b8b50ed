"""Relations between frames of a clip: scene cuts, steady illumination, and a recursive temporal average.

Frames are gamma-encoded, (1, C, H, W) in [0, 1]. The memory does not depend on the length of the clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor
from torch.nn import functional as F

from .camera_motion import LOG_FLOOR, camera_motion, camera_shift, lag, overlap
from .exposure import LEVEL, luma
from .resize import area_average, reduced
from .sliding import sliding_mean

THUMBNAIL_SIDE = 64  # px, longer side of the thumbnails on which cuts are detected
ALIKE = 0.7  # smallest correlation of two thumbnails of one scene, corrected for noise
BLOCK = 4  # px of a thumbnail: means of blocks of this side are compared, which suppresses noise
NOISE_SURE = 3  # the scene can only have changed if the variance of the differences is this many times that of noise
EMPTY = 6 / 255  # a thumbnail without structure and with a lower mean luma is black with noise
SPARK = 30 / 255  # luma in a thumbnail that a distant lamp exceeds, but noise around black does not
LIGHT_STEP = log(1.5)  # a larger log gain from one frame to the next is a cut, and is followed at once
ILLUMINATION_GRID = (12, 16)  # rows and columns of the grid on which two frames' illumination is compared
LAG = 0.35  # px that the frames of a mean may lag behind the last one, together
DETAIL = 0.4  # share of the last frame's finest detail in a mean that is resampled, to make up for what that blurs
LOW_PASS = 5  # px, window of the local mean that separates motion from noise


@dataclass
class SteadyIllumination:
    """Slows down changes of the illumination: flickering lamps, automatic exposure and white balance.

    Call it with each frame (1, 3, H, W) of a shot in order; the first one is returned unchanged.

    Attributes:
        pace: share of a change that one frame follows, 0..1. The n-th frame follows at least 1/n, so that the level
            starts as the mean of the first frames.
    """

    pace: float = 0.1
    before: Tensor | None = None
    seen: int = 0

    def restart(self, frame: Tensor) -> Tensor:
        """Makes this frame's illumination the new reference. Returns the frame unchanged."""
        self.before, self.seen = frame, 1
        return frame

    def __call__(self, frame: Tensor) -> Tensor:
        self.seen += 1
        if self.before is not None:
            pair = overlap(self.before, frame, camera_shift(self.before, frame))
            undone = 1 - max(self.pace, 1 / self.seen)
            frame = (frame * light_change(*pair).mul(-undone).exp()).clamp(0, 1)
        self.before = frame
        return frame


@dataclass
class TemporalFilter:
    """Recursive average of the enhanced frames of one shot, guided by the dark frames. Call it with frames in order.

    Each pixel is the running mean of the last results as long as the dark frames differ by no more than noise. The
    camera's motion is compensated first, so pans, zooms, tilts and a shaking hand gain, too. Where something moves on
    its own the mean restarts, or holds fewer frames the farther it lags behind, so there are no ghosts, but less
    denoising. Nothing is kept over a cut: each shot takes a new filter.

    Results are averaged instead of dark frames, because clipping at black gives noise a positive mean: averaged dark
    frames keep that offset without the noise, and the nets, trained on noisy pictures, turn it into haze.

    Attributes:
        frames: largest number of frames in the mean.
    """

    frames: float = 8.0
    dark: Tensor | None = None
    picture: Tensor | None = None
    count: Tensor | None = None  # (1, 1, H, W): number of frames in each pixel's mean

    def __call__(self, dark: Tensor, picture: Tensor) -> Tensor:
        """Takes a dark frame and its result, (1, 3, H, W) each; returns the averaged result of the same shape."""
        if self.dark is None or self.picture is None or self.count is None:
            self.dark, self.picture, self.count = dark, picture, torch.ones_like(dark[:, :1])
            return picture
        motion = camera_motion(self.dark, dark)
        history, before = motion.follow(self.dark, self.picture)
        count = motion.follow_count(self.count)
        history = torch.where(count > 0, history, dark)  # a border of black would pass for something that moves
        limit = LAG / lag(history, dark).clamp_min(1e-3)
        count = 1 + torch.minimum(count, limit) * static_weight(dark, history, count > 0)
        self.dark, self.picture = history + (dark - history) / count, before + (picture - before) / count
        if motion.theta is not None:
            news = picture - self.picture
            self.picture = (self.picture + DETAIL * (news - sliding_mean(news, 3))).clamp(0, 1)
        self.count = count.clamp_max(self.frames)
        return self.picture


def follow(level: Tensor | None, value: Tensor, pace: float) -> Tensor:
    """Next exponential average of positive values, in log space. `level` is the last average, None at the start.

    `pace` is the weight of the new value, 0..1.
    """
    return value if level is None else level * (value / level) ** pace


def frame_thumbnail(frame: Tensor) -> Tensor:
    """(1, 3, H, W) reduced to a longer side of at most THUMBNAIL_SIDE pixels, float32."""
    return reduced(frame.float(), THUMBNAIL_SIDE)


def is_other_scene(before: Tensor, after: Tensor) -> bool:
    """Whether two thumbnails show different scenes, regardless of their brightness.

    Both are divided by their means, and the camera's shift is compensated, so a pan is not a cut. Two conditions must
    hold. The means of blocks differ by more than noise explains (the noise is estimated from the variance within
    blocks). And the correlation of the block means, with the noise subtracted from their variances, is below ALIKE.
    Thumbnails that are black, too dark or nothing but noise count as the same scene.
    """
    if before.shape != after.shape:
        return True
    means = [float(luma(x).mean()) for x in (before, after)]
    if min(means) < LEVEL:  # too dark to compare
        return False
    a, b = (x / mean for x, mean in zip((before, after), means, strict=True))
    a, b = ((x + 0.5).log() for x in overlap(a, b, camera_shift(a / 10, b / 10)))
    blocks = [_block_means(x) for x in (a, b, b - a)]
    rounding = [_rounding(mean) for mean in means]
    noise = [n + r for (_, n), r in zip(blocks, (*rounding, sum(rounding)), strict=True)]
    spread = [float(c.square().mean()) for c, _ in blocks]
    if spread[2] < NOISE_SURE * noise[2]:
        return False
    structure = [max(s - n, 0.0) for s, n in zip(spread[:2], noise, strict=False)]
    if min(structure) < 0.05 * max(structure):  # only one of them shows anything
        return True
    return float((blocks[0][0] * blocks[1][0]).mean()) < ALIKE * (structure[0] * structure[1]) ** 0.5


def is_black(small: Tensor) -> bool:
    """Whether a thumbnail is black apart from noise: dark all over, with block means that differ only by noise."""
    light = luma(small)
    mean = float(light.mean())
    if mean > EMPTY or float(light.amax()) > SPARK:
        return False
    if mean < LEVEL / 2:
        return True
    means, noise = _block_means((small / mean + 0.5).log())
    return float(means.square().mean()) < NOISE_SURE * (noise + _rounding(mean))


def _rounding(mean: float) -> float:
    """Variance that rounding to 8 bits adds to the logarithms of a thumbnail of this mean luma."""
    return (LEVEL / mean) ** 2 / 12 / 1.5**2


def _block_means(x: Tensor) -> tuple[Tensor, float]:
    """Means of BLOCK x BLOCK blocks minus their overall mean, and the variance of these means that is due to noise.

    All variation within a block counts as noise.
    """
    size = [min(BLOCK, n) for n in x.shape[-2:]]
    height, width = (n // s * s for n, s in zip(x.shape[-2:], size, strict=True))
    blocks = x[..., :height, :width].unfold(2, size[0], size[0]).unfold(3, size[1], size[1])
    means, count = blocks.mean((4, 5)), size[0] * size[1]
    within = float((blocks - means[..., None, None]).square().sum()) / max(1, means.numel() * (count - 1))
    return means - means.mean((2, 3), keepdim=True), within / count


def light_change(before: Tensor, after: Tensor) -> Tensor:
    """Log gains per channel (1, C, 1, 1) of the illumination between two aligned frames (1, C, H, W).

    The median over a grid ignores motion in a few of its fields. The result approaches 0 where the fields disagree,
    because the change is then not one of the illumination.
    """
    grid = tuple(min(n, m) for n, m in zip(ILLUMINATION_GRID, before.shape[-2:], strict=True))
    a, b = ((area_average(x.float(), grid) + LOG_FLOOR / 4).log().flatten(2) for x in (before, after))
    change = (b - a).median(2, keepdim=True).values  # (1, C, 1)
    spread = (b - a - change).abs().median(2, keepdim=True).values
    change = change.clamp(-LIGHT_STEP, LIGHT_STEP) * (1 - spread / 0.2).clamp_min(0)
    return change[..., None].to(after.dtype)


def static_weight(frame: Tensor, history: Tensor, known: Tensor) -> Tensor:
    """Weight 0..1 per pixel (1, 1, H, W): 1 where `frame` and the aligned `history` differ only by noise.

    It tests the difference and, more strictly, its local mean, which reduces noise but not motion. `known` (1, 1, H, W)
    is False where there is no history; the weight is 0 there.
    """
    error = torch.where(known, frame - history, 0.0)
    local = sliding_mean(error, LOW_PASS)
    grain = _grain(frame)
    # If most of the picture moves, the spread of the differences overestimates the noise: the grain bounds it.
    z = (error / _noise(history, error, grain, 1.5)).abs().amax(1, keepdim=True)
    z_local = (local / _noise(history, local, grain, 2.5 / LOW_PASS)).square().mean(1, keepdim=True).sqrt()
    excess = torch.maximum(z - 3, z_local - 1.5).clamp_min(0)
    return (-2 * excess**2).exp() * known


def _noise(level: Tensor, values: Tensor, grain: Tensor, bound: float) -> Tensor:
    """Standard deviation of the noise in `values` (1, C, H, W) as a function of the brightness `level`, same shape.

    Estimated by medians over eight classes of brightness per channel; at most `bound` times the grain of the class.
    """
    channels = level.shape[1]
    stride = max(1, level[0, 0].numel() // 65536)
    sample = [x.reshape(channels, -1)[:, ::stride] for x in (level, values.abs(), grain)]
    order = sample[0].argsort(1)
    classes = [x.gather(1, order).tensor_split(8, 1) for x in sample]
    usable = [i for i in range(8) if classes[0][i].shape[1]]
    edges = torch.stack([classes[0][i][:, -1] for i in usable[:-1]], 1) if len(usable) > 1 else None
    spread, bounds = (torch.stack([c[i].median(1).values for i in usable], 1) * 1.48 for c in classes[1:])
    sigma = torch.minimum(spread, bounds * bound).clamp_min(0.3 / 255 * bound)  # (C, 8)
    if edges is None:
        return sigma.view(1, channels, 1, 1)
    index = torch.searchsorted(edges.contiguous(), level.reshape(channels, -1).contiguous())
    return sigma.gather(1, index).view_as(level)


def _grain(x: Tensor) -> Tensor:
    """The size of the `second_differences` at each pixel, of the shape of `x`."""
    return second_differences(F.pad(x, (1, 1, 1, 1), mode="replicate")).abs()


def second_differences(x: Tensor) -> Tensor:
    """Of (B, C, H, W): (B, C, H - 2, W - 2), as strong as white noise in x, and small at edges (Immerkaer, 1996)."""
    kernel = x.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]).div(6).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, groups=x.shape[1])
