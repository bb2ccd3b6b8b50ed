"""Frames of a clip seen through each other: scene cuts, the camera's shift, and a recursive average that keeps motion.

Everything works on gamma-encoded (1, C, H, W) frames in [0, 1] and in constant memory, whatever the clip's length.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor
from torch.nn import functional as F

from .exposure import luma
from .resize import area_average

Shift = tuple[int, int]  # rows, columns

GLANCE = 64  # px, longer side of the thumbnails that cuts are found on
ALIKE = 0.7  # correlation of two thumbnails of one scene, at least, once their noise is accounted for
BLOCK = 4  # px of a thumbnail, side of the cells whose means are compared: averaging over them suppresses the noise
SURE = 3  # variance of the cells' differences against that of noise, from which it is the scene that changed
LEVEL = 1 / 255  # below this mean 8 bits hold no scene to compare, and everything there is is rounded to such levels
EMPTY = 6 / 255  # mean luma below which a thumbnail without structure is black and its noise
SPARK = 30 / 255  # luma that noise around black does not reach in a thumbnail, but a distant lamp does
LIGHT_STEP = log(1.5)  # a larger change of the light from one frame to the next is a cut: it must be followed at once
LIGHT_CELLS = (12, 16)
BLACK = 1 / 64  # added below logarithms, so that noise around black does not count
LOW_PASS = 5  # px, window that tells motion from noise


@dataclass
class SteadyLight:
    """Lets changes of the light (lamps, automatic exposure and white balance) come through slowly.

    Call it with each frame (1, 3, H, W) of a shot in turn; the first comes back as it is. `pace` is the share of a
    change that one frame follows, 0..1; the first ones follow more, so that the level starts as their mean.
    """

    pace: float = 0.1
    before: Tensor | None = None
    seen: int = 0

    def restart(self, frame: Tensor) -> Tensor:
        """Forgets earlier frames: this frame's illumination is the new reference. Returns the frame unchanged."""
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
    """Recursive average over the frames of one shot, guided by the dark frames; call it with each frame in turn.

    Every pixel is the running mean of the last pictures as long as the dark frames below differ by no more than noise,
    and starts again where something moved: no ghosts, but no gain there either. The camera's own shift is taken out
    first. It is the results that are averaged, not the dark frames: nets that were trained on noisy pictures take the
    bias of noise around black, which averaging leaves behind without the noise, for haze.

    Attributes:
        frames: how many frames the mean reaches back, at most.
    """

    frames: float = 8.0
    dark: Tensor | None = None
    picture: Tensor | None = None
    count: Tensor | None = None  # (1, 1, H, W): frames that each pixel is the mean of

    def __call__(self, dark: Tensor, picture: Tensor) -> Tensor:
        """Dark frame and its result, (1, 3, H, W) each; returns the steadied result."""
        if self.dark is None or self.picture is None or self.count is None:
            self.dark, self.picture, self.count = dark, picture, torch.ones_like(dark[:, :1])
            return picture
        shift = camera_shift(self.dark, dark)
        history, count = moved(self.dark, shift), moved(self.count, shift)
        count = 1 + count * stillness(dark, history, count > 0)
        before = moved(self.picture, shift)
        self.dark, self.picture = history + (dark - history) / count, before + (picture - before) / count
        self.count = count.clamp_max(self.frames)
        return self.picture


def follow(level: Tensor | None, value: Tensor, pace: float) -> Tensor:
    """Exponential average of positive values in log space; the first value is returned as it is."""
    return value if level is None else level * (value / level) ** pace


def is_cut(before: Tensor, after: Tensor) -> bool:
    """Whether two frames (1, 3, H, W) show different scenes, or the light was switched between them."""
    if before.shape != after.shape:
        return True
    a, b = (thumbnail(x) for x in (before, after))
    step = ((b + BLACK).log() - (a + BLACK).log()).mean()
    return float(step.abs()) > LIGHT_STEP or is_other_scene(a, b)


def thumbnail(frame: Tensor) -> Tensor:
    """(1, 3, H, W) reduced to GLANCE px on its longer side, float32."""
    factor = max(1.0, max(frame.shape[-2:]) / GLANCE)
    size = tuple(max(1, round(n / factor)) for n in frame.shape[-2:])
    return area_average(frame.float(), size)


def is_other_scene(before: Tensor, after: Tensor) -> bool:
    """Whether two thumbnails show different scenes, whatever the light.

    Both are divided by their means, and the camera's shift is taken out: a pan is no cut, and two pictures that merely
    share their brightness are one. It takes two things. Cell by cell the difference must be larger than noise makes
    it, which the spread inside the cells tells; and what the cells have in common, after the noise is taken off their
    variance, must be little. Noise alone, black, and what is too dark to tell count as the same scene.
    """
    if before.shape != after.shape:
        return True
    means = [float(luma(x).mean()) for x in (before, after)]
    if min(means) < LEVEL:
        return False
    a, b = (x / mean for x, mean in zip((before, after), means, strict=True))
    a, b = ((x + 0.5).log() for x in overlap(a, b, camera_shift(a / 10, b / 10)))
    cells = [_cells(x) for x in (a, b, b - a)]
    rounding = [_rounding(mean) for mean in means]
    noise = [n + r for (_, n), r in zip(cells, (*rounding, sum(rounding)), strict=True)]
    spread = [float(c.square().mean()) for c, _ in cells]
    if spread[2] < SURE * noise[2]:
        return False
    structure = [max(s - n, 0.0) for s, n in zip(spread[:2], noise, strict=False)]
    if min(structure) < 0.05 * max(structure):  # something and nothing
        return True
    return float((cells[0][0] * cells[1][0]).mean()) < ALIKE * (structure[0] * structure[1]) ** 0.5


def shows_nothing(small: Tensor) -> bool:
    """Whether a thumbnail is black but for noise: dark all over, and its cells differ by no more than noise makes."""
    light = luma(small)
    mean = float(light.mean())
    if mean > EMPTY or float(light.amax()) > SPARK:
        return False
    if mean < LEVEL / 2:
        return True
    cells, noise = _cells((small / mean + 0.5).log())
    return float(cells.square().mean()) < SURE * (noise + _rounding(mean))


def _rounding(mean: float) -> float:
    """Variance that 8 bits add to the logarithms of a thumbnail of this mean luma."""
    return (LEVEL / mean) ** 2 / 12 / 1.5**2


def _cells(x: Tensor) -> tuple[Tensor, float]:
    """Means of cells less their mean, and the variance that they have if all that differs inside them is noise."""
    size = [min(BLOCK, n) for n in x.shape[-2:]]
    height, width = (n // s * s for n, s in zip(x.shape[-2:], size, strict=True))
    blocks = x[..., :height, :width].unfold(2, size[0], size[0]).unfold(3, size[1], size[1])
    means, count = blocks.mean((4, 5)), size[0] * size[1]
    within = float((blocks - means[..., None, None]).square().sum()) / max(1, means.numel() * (count - 1))
    return means - means.mean((2, 3), keepdim=True), within / count


def camera_shift(before: Tensor, after: Tensor) -> Shift:
    """Whole pixels by which the picture moved, up to a quarter of its size; (0, 0) unless moving it fits better.

    Phase correlation (Kuglin and Hines, 1975), weighted towards the low frequencies, where noise is weak.
    """
    height, width = before.shape[-2:]
    window = _hann(height, before)[:, None] * _hann(width, before)
    # In logarithms a lamp weighs no more than the dark around it.
    a, b = ((luma(x.float())[0, 0] + BLACK).log() for x in (before, after))
    spectra = [torch.fft.rfft2((x - x.mean()) * window) for x in (a, b)]
    cross = spectra[1] * spectra[0].conj()
    fy, fx = torch.fft.fftfreq(height, device=a.device), torch.fft.rfftfreq(width, device=a.device)
    weight = (-((fy[:, None] ** 2 + fx**2) / (2 * 0.1**2))).exp()
    surface = torch.fft.irfft2(cross / cross.abs().clamp_min(1e-12) * weight, s=(height, width))
    reach = height // 4, width // 4
    near = surface.roll(reach, (0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
    row, column = divmod(int(near.argmax()), near.shape[1])
    shift = row - reach[0], column - reach[1]
    better = shift != (0, 0) and _misfit(before, after, shift) < 0.95 * _misfit(before, after, (0, 0))
    return shift if better else (0, 0)


def overlap(before: Tensor, after: Tensor, shift: Shift) -> tuple[Tensor, Tensor]:
    """The parts (B, C, h, w) of both frames that show the same things once `before` moved by `shift`."""
    (height, width), (dy, dx) = before.shape[-2:], shift
    y, x = max(dy, 0), max(dx, 0)
    rows, columns = height - abs(dy), width - abs(dx)
    earlier = before[..., y - dy : y - dy + rows, x - dx : x - dx + columns]
    return earlier, after[..., y : y + rows, x : x + columns]


def moved(x: Tensor, shift: Shift) -> Tensor:
    """`x` (B, C, H, W) moved by whole pixels; 0 where there was nothing."""
    if shift == (0, 0):
        return x
    result = torch.zeros_like(x)
    source, target = overlap(x, result, shift)
    target.copy_(source)
    return result


def light_change(before: Tensor, after: Tensor) -> Tensor:
    """Logarithm of the gain per channel (1, C, 1, 1) between two aligned frames.

    The median over cells, for which what moves in a few of them does not count. 0 where the cells disagree: then it
    was not the light.
    """
    cells = tuple(min(n, m) for n, m in zip(LIGHT_CELLS, before.shape[-2:], strict=True))
    a, b = ((area_average(x.float(), cells) + BLACK / 4).log().flatten(2) for x in (before, after))
    change = (b - a).median(2, keepdim=True).values  # (1, C, 1)
    spread = (b - a - change).abs().median(2, keepdim=True).values
    change = change.clamp(-LIGHT_STEP, LIGHT_STEP) * (1 - spread / 0.2).clamp_min(0)
    return change[..., None].to(after.dtype)


def stillness(frame: Tensor, history: Tensor, known: Tensor) -> Tensor:
    """How sure it is, 0..1 per pixel (1, 1, H, W), that nothing but noise tells `frame` from the aligned `history`.

    Looks at the difference itself and, more strictly, at its local mean, where noise averages out and motion does not.
    """
    error = torch.where(known, frame - history, 0.0)
    local = F.avg_pool2d(error, LOW_PASS, 1, LOW_PASS // 2, count_include_pad=False)
    grain = _grain(frame)
    # Where most of the picture moves the differences' own spread is no measure of noise: the grain bounds it.
    z = (error / _noise(history, error, grain, 1.5)).abs().amax(1, keepdim=True)
    z_local = (local / _noise(history, local, grain, 2.5 / LOW_PASS)).square().mean(1, keepdim=True).sqrt()
    excess = torch.maximum(z - 3, z_local - 1.5).clamp_min(0)
    return (-2 * excess**2).exp() * known


def _noise(level: Tensor, values: Tensor, grain: Tensor, bound: float) -> Tensor:
    """Standard deviation of the noise in `values` (1, C, H, W), as far as it depends on the brightness `level`.

    Robust medians over eight classes of brightness in every channel; at most `bound` times the grain of that class.
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
    """|second differences| scaled to the standard deviation of white noise (Immerkaer, 1996); small at edges."""
    kernel = x.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]).div(6).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1]).abs()


def _misfit(before: Tensor, after: Tensor, shift: Shift) -> Tensor:
    a, b = overlap(before, after, shift)
    return F.avg_pool2d(a - b, LOW_PASS, 1, LOW_PASS // 2).abs().mean()


def _hann(size: int, like: Tensor) -> Tensor:
    return torch.hann_window(size + 2, periodic=False, device=like.device)[1:-1]
