"""Motion of the camera between two frames of a shot: whole pixels first, then what is left of it as an affine map.

Frames are gamma-encoded, (1, 3, H, W) in [0, 1]. Coordinates of maps run from -1 to 1 over the width and the height, as
in `torch.nn.functional.affine_grid` without aligned corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .exposure import luma
from .metal import detour
from .resize import reduced, resize_map
from .sliding import sliding_mean

Shift = tuple[int, int]  # rows, columns

LOG_FLOOR = 1 / 64  # added before taking logarithms, to suppress noise around black
SMOOTHING = 5  # px, window of the local means that frames are compared by
FIT_SIDES = (64, 256)  # px, longer sides of the reduced frames on which the motion is fitted, coarse to fine
FIT_STEPS = 4  # Gauss-Newton steps on each of them
SMALLEST = 16  # px, shorter side below which a reduced frame is too small to fit a motion to
MARGIN = 3  # px of a reduced frame at its border, where the smoothing lacks pixels
CORRELATED = 50  # px of a twice smoothed frame over which its noise is one value
MOTION_SURE = 40.0  # squared size of a motion in standard errors: chance exceeds it once in two million (chi-square, 6)
ALIGNED = 0.7  # smallest correlation of two aligned frames: noise alone has none, another scene has less
STILL = 0.1  # px, a displacement up to which nothing is resampled: that would cost more sharpness than it gives
FARTHEST = 1 / 8  # of the longer side: a larger displacement beyond the shift is a fit that has diverged
LAG_WINDOW = 17  # px of a reduced frame, window in which one displacement of its own is looked for
LAG_SURE = 4.25  # standard errors from which on such a displacement counts
BAND = 256  # rows that are resampled at a time, which bounds the memory


@dataclass(frozen=True)
class CameraMotion:
    """Where the picture went between two frames.

    Attributes:
        shift: in whole pixels.
        theta: (2, 3), float32 on the processor: maps positions (x, y, 1) in the later frame to those in the earlier
            one. None: the shift alone.
    """

    shift: Shift
    theta: Tensor | None = None

    def follow(self, *pictures: Tensor) -> list[Tensor]:
        """Pictures (1, C, H, W) of the earlier frame as the later one sees them; beyond the border, the border's."""
        if self.theta is None:
            return [moved(x, self.shift) for x in pictures]
        return [resampled(x, self.theta, "bicubic") for x in pictures]

    def follow_count(self, count: Tensor) -> Tensor:
        """As `follow`, for (1, 1, H, W) numbers of frames: those of the nearest pixel, 0 beyond the border."""
        return moved(count, self.shift) if self.theta is None else resampled(count, self.theta, "nearest")


def camera_motion(before: Tensor, after: Tensor) -> CameraMotion:
    """Motion between two frames (1, 3, H, W) of any floating-point dtype.

    The shift is `camera_shift`'s. From there an affine map is fitted: the logarithms of the reduced frames are
    registered by Gauss-Newton steps (Lucas and Kanade, 1981; the forward-additive form of Baker and Matthews, 2004),
    with Geman-McClure weights, which leave out what moves on its own. A common change of brightness does not matter.
    There is no map where it would displace nothing by more than STILL, where it may be an accident of the noise, where
    it fits no better than the shift or not at all, and where the frames are too small or too dark to tell.
    """
    shift = camera_shift(before, after)
    height, width = after.shape[-2:]
    start = torch.eye(2, 3)
    start[:, 2] -= torch.tensor([2 * shift[1] / width, 2 * shift[0] / height])
    theta, fitted = start, False
    for side in FIT_SIDES:
        a, b = (_view(x, side) for x in (before, after))
        if min(a.shape[-2:]) < SMALLEST:
            continue
        theta, sure = _fitted(a, b, theta, start)
        if not _farthest(theta - start, (height, width)) <= FARTHEST * max(height, width):  # not a number, too
            return CameraMotion(shift)
        fitted = sure and _better(a, b, theta, start)
    moves = fitted and _farthest(theta - start, (height, width)) > STILL
    return CameraMotion(shift, theta if moves else None)


def lag(history: Tensor, frame: Tensor) -> Tensor:
    """Displacement in px, (1, 1, H, W), that is left between two aligned frames (1, 3, H, W).

    One step of Lucas and Kanade (1981) in the window around each pixel of the reduced frames: it finds parts that move
    on their own by so little that their texture hides it from `static_weight`. 0 where noise explains the difference.
    """
    a, b = (_view(x, FIT_SIDES[-1], 1)[0, 0] for x in (history, frame))
    if min(a.shape) < SMALLEST:
        return torch.zeros_like(frame[:, :1])
    error = a - b
    error = error - error.median()
    noise = _deviation(error) ** 2
    gy, gx = torch.gradient((a + b) / 2)
    products = torch.stack([gx * gx, gx * gy, gy * gy, gx * error, gy * error])
    xx, xy, yy, ex, ey = sliding_mean(products, LAG_WINDOW)
    damping = 1e-4 * (xx + yy).mean() + 0.02 * noise
    xx, yy = xx + damping, yy + damping
    determinant = xx * yy - xy * xy
    x, y = (yy * ex - xy * ey) / determinant, (xx * ey - xy * ex) / determinant
    explained = (x * ex + y * ey) * (LAG_WINDOW / SMOOTHING) ** 2 / noise  # squared, in standard errors
    sure = (1 - LAG_SURE**2 / explained.clamp_min(1e-9)).clamp_min(0)
    displaced = (x.square() + y.square()).sqrt() * sure * (max(frame.shape[-2:]) / max(a.shape))
    return resize_map(displaced[None, None].to(frame.device), frame.shape[-2:]).to(frame.dtype)


def resampled(x: Tensor, theta: Tensor, mode: str) -> Tensor:
    """(1, C, H, W) at the positions that `theta` (2, 3) gives, in its dtype; "bicubic" in its range, or "nearest".

    Beyond the border, "bicubic" repeats it and "nearest" gives 0.
    """
    padding = "border" if mode == "bicubic" else "zeros"
    source = detour(x).float()
    result = torch.empty_like(source)
    for top in range(0, x.shape[-2], BAND):
        grid = _grid(theta.to(source.device, torch.float32), x.shape[-2:], slice(top, top + BAND))
        result[..., top : top + BAND, :] = F.grid_sample(source, grid, mode, padding, align_corners=False)
    return (result.clamp_(0, 1) if mode == "bicubic" else result).to(x)


def camera_shift(before: Tensor, after: Tensor) -> Shift:
    """Shift of the picture between two frames (1, 3, H, W), in whole pixels: (rows, columns).

    At most a quarter of the size; (0, 0) if shifting does not reduce the difference clearly. Phase correlation (Kuglin
    and Hines, 1975), weighted towards low frequencies, where noise is weak.
    """
    height, width = before.shape[-2:]
    window = _hann(height, before)[:, None] * _hann(width, before)
    # Logarithms keep bright lamps from dominating the correlation.
    a, b = ((luma(x.float())[0, 0] + LOG_FLOOR).log() for x in (before, after))
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
    """The parts (B, C, h, w) of both frames that overlap after `before` is moved by `shift`."""
    (height, width), (dy, dx) = before.shape[-2:], shift
    y, x = max(dy, 0), max(dx, 0)
    rows, columns = height - abs(dy), width - abs(dx)
    earlier = before[..., y - dy : y - dy + rows, x - dx : x - dx + columns]
    return earlier, after[..., y : y + rows, x : x + columns]


def moved(x: Tensor, shift: Shift) -> Tensor:
    """`x` (B, C, H, W) moved by whole pixels; uncovered pixels are 0."""
    if shift == (0, 0):
        return x
    result = torch.zeros_like(x)
    source, target = overlap(x, result, shift)
    target.copy_(source)
    return result


def _misfit(before: Tensor, after: Tensor, shift: Shift) -> Tensor:
    a, b = overlap(before, after, shift)
    return F.avg_pool2d(a - b, SMOOTHING, 1, SMOOTHING // 2).abs().mean()


def _hann(size: int, like: Tensor) -> Tensor:
    return torch.hann_window(size + 2, periodic=False, device=like.device)[1:-1]


def _view(frame: Tensor, side: int, times: int = 2) -> Tensor:
    """Logarithms of the luma (1, 1, h, w) of a frame that is reduced to the longer side `side`, smoothed so many times.

    In float32 on the processor: so little work is not worth a device's many small kernels.
    """
    grey = (luma(reduced(frame.float(), side)).cpu() + LOG_FLOOR).log()
    for _ in range(times):
        grey = F.avg_pool2d(grey, SMOOTHING, 1, SMOOTHING // 2, count_include_pad=False)
    return grey


def _fitted(before: Tensor, after: Tensor, theta: Tensor, still: Tensor) -> tuple[Tensor, bool]:
    """`theta` (2, 3) after FIT_STEPS, and whether it surely differs from `still`; not a number without a solution."""
    height, width = after.shape[-2:]
    ys, xs = _centres(height, after)[:, None], _centres(width, after)[None, :]
    sure = False
    for _ in range(FIT_STEPS):
        seen, error, inside = _compared(before, after, theta)
        # The mean of both gradients converges in fewer steps (Malis, 2004).
        gy, gx = torch.gradient((seen + after[0, 0]) / 2)
        gx, gy = gx * (width / 2), gy * (height / 2)
        slopes = torch.stack([g * p for g in (gx, gy) for p in (xs, ys, torch.ones_like(gx))]).flatten(1)
        deviation = _deviation(error[inside])
        weighted = slopes * (inside / (1 + (error / (2 * deviation)) ** 2) ** 2).flatten()
        normal, wanted = (weighted @ slopes.T).double(), (weighted @ error.flatten()).double()
        damped = normal + torch.eye(6, dtype=torch.float64) * 1e-3 * normal.diagonal().mean()
        step, failed = torch.linalg.solve_ex(damped, wanted)
        if int(failed):
            return torch.full_like(theta, torch.nan), False
        theta = theta - step.view(2, 3).float()
        change = (theta - still).double().flatten()
        sure = float(change @ normal @ change) > MOTION_SURE * CORRELATED * float(deviation) ** 2
    return theta, sure


def _compared(before: Tensor, after: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`before` at the positions of `after`, their difference without its median, and where both are known: (h, w)."""
    height, width = after.shape[-2:]
    grid, home = (_grid(t, (height, width), slice(None)) for t in (theta, torch.eye(2, 3)))
    seen = F.grid_sample(before, grid, "bilinear", "border", align_corners=False)[0, 0]
    limit = 1 - torch.tensor([2 * MARGIN / width, 2 * MARGIN / height])
    inside = (torch.maximum(grid.abs(), home.abs()) <= limit).all(-1)[0]
    error = seen - after[0, 0]
    return seen, error - error[inside].median() if inside.any() else error, inside


def _deviation(error: Tensor) -> Tensor:
    """Standard deviation of errors without outliers, more than 0."""
    return 1.48 * error.abs().median() + 1e-4 if error.numel() else torch.ones(())


def _better(before: Tensor, after: Tensor, theta: Tensor, start: Tensor) -> bool:
    """Whether `theta` leaves less of a difference than `start` where both know it, and then aligns the frames."""
    (seen, a, known), (_, b, as_well) = (_compared(before, after, t) for t in (theta, start))
    both = known & as_well
    if both.sum() < SMALLEST**2 or a[both].var() > (1 - ALIGNED) * (seen[both].var() + after[0, 0][both].var()):
        return False
    width = 4 * _deviation(b[both]) ** 2
    left, was = (float((e[both] ** 2 / (e[both] ** 2 + width)).sum()) for e in (a, b))
    return left < was


def _farthest(change: Tensor, size: tuple[int, int]) -> float:
    """Largest displacement in px that a change (2, 3) of a map makes in a frame of `size` (H, W): at a corner."""
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)])
    displaced = corners @ change.T * torch.tensor([size[1] / 2, size[0] / 2])
    return float(displaced.norm(dim=1).max())


def _centres(size: int, like: Tensor) -> Tensor:
    """Coordinates (size,) of the centres of pixels."""
    return (torch.arange(size, device=like.device, dtype=torch.float32) * 2 + 1) / size - 1


def _grid(theta: Tensor, size: tuple[int, ...], rows: slice) -> Tensor:
    """Positions (1, rows, W, 2) that `theta` gives for these rows of a picture of `size` (H, W)."""
    ys, xs = _centres(size[0], theta)[rows, None, None], _centres(size[1], theta)[None, :, None]
    return (xs * theta[:, 0] + ys * theta[:, 1] + theta[:, 2])[None]
