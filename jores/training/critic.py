"""A critic of fine detail: a small net that learns to tell what is drawn from what photographs have in the same place.

Squared errors and distances in features are averages over what the detail could be, so they leave it too weak. A critic
asks whether it could be real (Goodfellow et al., NeurIPS 2014). It sees fine detail alone, beside R' * L', so it has no
say in light and colour. It compares the true with the drawn detail of the same place (Jolicoeur-Martineau, ICLR 2019),
and its slope at true detail is kept small (Mescheder et al., ICML 2018), here as the difference that a little noise
makes. As UNet and RNet it computes on folded pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

WIDTH, FOLD = 64, 2
NUDGE, SLOPE = 0.1, 1.0  # standard deviation of the noise, in units of y; weight of the squared slope


class DetailCritic(nn.Module):
    """Scores (B, 1, H/4, W/4) of a detail y (B, 3, H, W) beside a picture R' * L' in [-1, 1] of the same size."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(FOLD),
            nn.Conv2d(6 * FOLD**2, WIDTH, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * WIDTH, 1, 1),
        )

    def forward(self, y: Tensor, picture: Tensor) -> Tensor:
        return self.layers(torch.cat([y, picture], 1)).float()

    def losses(self, y: Tensor, drawn: list[Tensor], picture: Tensor) -> tuple[list[Tensor], Tensor]:
        """The loss of each drawn detail, and the loss of the critic.

        The first have no gradient for the critic's weights, the second has none for the details.
        """
        true = self(y, picture)
        nudged = self(y + NUDGE * torch.randn_like(y), picture)
        frozen = {name: weight.detach() for name, weight in self.named_parameters()}
        for_critic = SLOPE * ((nudged - true) / NUDGE).square().mean()
        for_drawn = []
        for detail in drawn:
            for_critic = for_critic + F.softplus(self(detail.detach(), picture) - true).mean() / len(drawn)
            for_drawn.append(F.softplus(true.detach() - functional_call(self, frozen, (detail, picture))).mean())
        return for_drawn, for_critic
