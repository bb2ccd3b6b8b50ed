"""What ANet is told of a whole picture: how bright it should become, and the log gains that follow from that."""

from __future__ import annotations

import torch
from torch import Tensor

from .checkpoint import JoReSNets
from .conditions import GlobalStatistics
from .imaging.alpha import is_opaque, seen_average
from .imaging.exposure import brightened, mean_colour


@torch.no_grad()
def global_statistics(
    nets: JoReSNets, images: Tensor, exposure: float | Tensor | None, brightness: float = 0.0
) -> GlobalStatistics:
    """Global statistics of full pictures (B, 3 or 4, H, W), on the device of ANet; other arguments as in `adjust`."""
    small = anet_thumbnail(nets, images)
    scene = _scene(nets, images, small)
    if exposure is None:
        exposure = brightened(nets.anet.propose_exposure(small, scene), brightness)
    else:
        exposure = wanted_exposure(nets, images, exposure, brightness)
    return nets.anet.statistics(small, exposure, mean_colour(images), scene=scene)


@torch.no_grad()
def wanted_exposure(
    nets: JoReSNets, images: Tensor, exposure: float | Tensor | None, brightness: float = 0.0
) -> Tensor:
    """Target mean luma (B,) for full pictures (B, 3 or 4, H, W), on the device of ANet.

    It is `exposure`, one number or (B,), or ANet's proposal for None, made brighter by `brightness` EV.

    Raises:
        ValueError: see `check_exposure`.
    """
    check_exposure(exposure, len(images))
    if exposure is None:
        small = anet_thumbnail(nets, images)
        return brightened(nets.anet.propose_exposure(small, _scene(nets, images, small)), brightness)
    if not isinstance(exposure, Tensor):
        exposure = torch.full((len(images),), float(exposure))
    return brightened(exposure.to(next(nets.anet.parameters()).device, torch.float32), brightness)


def check_exposure(exposure: float | Tensor | None, count: int) -> None:
    """Raises ValueError if an exposure is not above 0 and at most 1, or a tensor not one number per picture."""
    if isinstance(exposure, Tensor):
        if exposure.shape != (count,) or not bool(((exposure > 0) & (exposure <= 1)).all()):
            raise ValueError(
                f"exposure must be one number for each of {count} pictures, above 0 and at most 1, not {exposure}"
            )
    elif exposure is not None and not 0 < exposure <= 1:
        raise ValueError(f"exposure must be above 0 and at most 1, not {exposure}")


def anet_thumbnail(nets: JoReSNets, images: Tensor) -> Tensor:
    """ANet's thumbnails, computed on the device of the pictures, so that no big picture is moved."""
    return seen_average(images, nets.anet.thumbnail_size).to(next(nets.anet.parameters()))


def _scene(nets: JoReSNets, images: Tensor, small: Tensor) -> Tensor | None:
    """What full pictures (B, 3 or 4, H, W) show, as `AdjustmentNet.seen`; without transparent borders, such as bars.

    `small`: their `anet_thumbnail`.
    """
    if nets.anet.scene is None:
        return None
    if is_opaque(images):
        return nets.anet.seen(small)
    return nets.anet.seen(torch.cat([anet_thumbnail(nets, _without_borders(one)) for one in images.split(1)]))


def _without_borders(image: Tensor) -> Tensor:
    """The part of (1, 4, H, W) that holds all of what is not transparent; all of it if there is nothing."""
    visible = image[0, 3] > 0
    rows, columns = (visible.any(axis).nonzero().flatten() for axis in (1, 0))
    return image[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else image
