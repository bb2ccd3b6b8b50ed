"""Stage "expose": trains ANet's exposure head on thumbnails of full pictures.

It is separate from stage "adjust" because its batches differ: hundreds of thumbnails instead of a few large crops.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoint import SHIPPED_SEGMENTER, JoReSNets, save_bundle
from ..imaging.exposure import mean_luma
from ..nets.exposure_head import LightHead, LightMixture
from ..nets.scene import SceneNet
from ..precision import fast_in_bfloat16
from ..semantics import load_segmenter
from .convert import to_tensor
from .data import coarse_thumbnail, fine_thumbnail, shadows_of
from .pairs import Pair
from .records import Scores, append_record, means_of_kinds
from .views import FOR_ALL, Pool, of_pair, of_paper, of_photo, unchanged

POOL_SEED = 11


class ExposureObjective(nn.Module):
    """Mean absolute log error of the proposed mean luma, plus that of the proposed `shadow_share`.

    Of a mixture, each expert learns from its own samples, and those in `common` from the samples that are FOR_ALL, too.
    The sorter learns by cross-entropy whose a sample is; one FOR_ALL may be that of any expert in `common`.
    """

    def __init__(self, head: LightHead | LightMixture, common: list[int] | None = None) -> None:
        super().__init__()
        self.net, self.common = head, list(range(len(head.heads))) if common is None else common

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        known, expert = batch["known"], batch["expert"]
        exposure, shadows = known.new_zeros(()), known.new_zeros(())
        for i, head in enumerate(self.net.heads):
            its = self._learns(i, expert).float()
            its = its / its.sum().clamp_min(1)
            wanted = head.share(known, batch["own"], batch["requested"])
            exposure = exposure + (its * (head.exposure(known).log() - batch["exposure"].log()).abs()).sum()
            shadows = shadows + (its * (wanted.log() - batch["shadows"].log()).abs()).sum()
        loss = exposure + shadows
        if isinstance(self.net, LightMixture):
            loss = loss + self._sorting(self.net.sorter.outputs(known), expert)
        count = len(self.net.heads)
        return {"loss": loss, "exposure": exposure / count, "shadows": shadows / count}

    def _sorting(self, logits: Tensor, expert: Tensor) -> Tensor:
        """Cross-entropy of the sorter; means of their own for both kinds of samples, of which a batch may lack one."""
        chances, own = logits.log_softmax(1), expert != FOR_ALL
        wrong = nn.functional.nll_loss(chances, expert, ignore_index=FOR_ALL, reduction="sum")
        missed = chances[:, self.common].logsumexp(1)[~own].sum()
        return wrong / own.sum().clamp_min(1) - missed / (~own).sum().clamp_min(1)

    def standardise(self, known: Tensor, expert: Tensor) -> None:
        """Sets `centre` and `spread` of each head to those of the samples that it learns from."""
        for i, head in enumerate(self.net.heads):
            head.standardise(known[self._learns(i, expert)])
        if isinstance(self.net, LightMixture):
            self.net.sorter.standardise(known)

    def _learns(self, i: int, expert: Tensor) -> Tensor:
        """Whether head `i` learns from samples that are for `expert` (B,)."""
        return (expert == i) | (expert == FOR_ALL) & (i in self.common) | (len(self.net.heads) == 1)


class Expose:
    """Stage "expose". What is known of all views is computed once, at the start.

    A `SceneNet` that was never fitted gets the encoder of the shipped segmenter, and its components from the views.

    `data` of the recipe: `views` per picture, `batch`, and shares of a batch: `photos` are darkened photographs, `own`
    unchanged photographs, `paper` photographs with a sheet of `Paper` over them, `lit` well-lit pictures of the pairs
    (unchanged, so their own brightness is the target); the rest are dark pictures of the pairs. `experts`: of each set
    of --data, the number of the expert that learns from it; without it every expert learns from all. `paper_expert`:
    the number of the one that learns from paper, and not from other photographs; without it all do.
    """

    name, best_score = "expose", "score"

    def __init__(
        self, nets: JoReSNets, pairs: list[Pair], photos: list[Pair] | None, val: list[Pair], data: dict[str, Any]
    ) -> None:
        self.nets, self.val, self.size = nets, val, data["batch"]
        rng, views = np.random.default_rng(POOL_SEED), range(data["views"])
        weights = [p.weight for p in pairs]
        head = nets.anet.exposure_head
        if not isinstance(head, LightHead | LightMixture):
            raise ValueError(
                "stage expose trains a LightHead; this preset has the exposure head of release 0.1: choose another"
            )
        of_photos = {key: data.get(key, 0.0) if photos else 0.0 for key in ("photos", "own", "paper")}
        on_paper = _paper_expert(data.get("paper_expert") if of_photos["paper"] else None, head)
        expert = _experts(data.get("experts"), pairs, head, on_paper, bool(photos))
        dark = 1 - data["lit"] - sum(of_photos.values())
        self.scene = _taught(nets.anet.scene)
        pairs_views = [self._seen(of_pair(p, rng, j > 0, e)) for p, e in expert for j in views]
        self.pools = [
            Pool(dark, pairs_views, np.repeat(weights, len(views))),
            Pool(data["lit"], [self._seen(unchanged(p, rng, e)) for p, e in expert], weights),
        ]
        if photos:
            dimmed = [self._seen(of_photo(p, rng, j > 0)) for p in photos for j in views]
            self.pools.append(Pool(of_photos["photos"], dimmed))
            self.pools.append(Pool(of_photos["own"], [self._seen(unchanged(p, rng, FOR_ALL)) for p in photos]))
        if of_photos["paper"]:
            sheets = [self._seen(of_paper(p, rng, on_paper)) for p in photos or []]
            self.pools.append(Pool(of_photos["paper"], sheets))
        self._describe()
        common = [i for i in range(len(head.heads)) if i != on_paper or i in {e for _, e in expert}]
        self.objective = ExposureObjective(head.requires_grad_(True), common)
        self.objective.standardise(*(torch.cat([p.samples[k] for p in self.pools]) for k in ("known", "expert")))

    @torch.no_grad()
    def _seen(self, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sample with `context` of the `SceneNet` in place of its fine thumbnail."""
        fine = sample.pop("fine")
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_in_bfloat16(fine.device)):  # there are many of them
            context = fine.new_zeros(0) if self.scene is None else self.scene.context(fine[None])[0]
        return {**sample, "context": context}

    def _describe(self) -> None:
        """Adds `known` to all samples: their statistics and what the `SceneNet` makes of their `context`."""
        contexts = [pool.samples.pop("context") for pool in self.pools]
        if self.scene is not None and not self.scene.components.any():
            self.scene.fit(torch.cat(contexts))
        for pool, context in zip(self.pools, contexts, strict=True):
            scene = context if self.scene is None else self.scene.projected(context)
            pool.samples["known"] = torch.cat([pool.samples.pop("statistics"), scene], 1)

    def batch(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One batch, float32.

        Of the dark pictures: known (B, 23 + scene), as they are `described`, and own (B,), the `shadow_share`.
        expert (B,), int64: the expert that learns from it, or FOR_ALL.
        exposure (B,): mean luma of the well-lit pictures. requested (B,): another mean luma; shadows (B,): the
        `shadow_share` of the well-lit picture at that mean luma.
        """
        shares = np.array([pool.share for pool in self.pools])
        counts = rng.multinomial(self.size, shares / shares.sum())
        drawn = [pool.draw(count, rng) for count, pool in zip(counts, self.pools, strict=True)]
        return {key: torch.cat([part[key] for part in drawn]) for key in drawn[0]}

    def validate(self, objective: ExposureObjective) -> tuple[dict[str, float], list[Tensor]]:
        """Mean absolute log error and bias (above 0: too bright) of the exposure and of the `shadow_share` on dark
        pictures, for each kind of pair, and the error of the exposure on well-lit pictures."""
        kinds: dict[str, Scores] = {}
        for pair in self.val:
            for key, value in self._errors(objective.net, pair).items():
                kinds.setdefault(pair.kind, Scores()).note(key, value)
        means = means_of_kinds(kinds)
        return {**means, "score": -means["exposure_error"] - means["shadow_error"]}, []

    def _errors(self, head: LightHead | LightMixture, pair: Pair) -> dict[str, Tensor]:
        device = next(head.parameters()).device
        true = mean_luma(to_tensor(pair.high)[None]).to(device)
        thumbnails = [coarse_thumbnail(pair.dark), coarse_thumbnail(pair.high)]
        views = torch.stack(thumbnails).to(device)
        scene = self.nets.anet.seen(torch.stack([fine_thumbnail(pair.dark), fine_thumbnail(pair.high)]))
        dark, lit = head(views, scene).log() - true.log()
        aim = head.shadows(views, true.expand(2), scene)[0, 0]
        wanted = aim.log() - shadows_of(*thumbnails)[0].to(device).log()
        return {"exposure_error": dark.abs(), "exposure_bias": dark, "shadow_error": wanted.abs(),
                "shadow_bias": wanted, "well_lit_error": lit.abs()}  # fmt: skip

    def export(self, objective: ExposureObjective, path: Path, record: dict[str, Any]) -> None:
        anet = copy.deepcopy(self.nets.anet)  # its own head goes on learning
        anet.exposure_head.load_state_dict(objective.net.state_dict())
        save_bundle(path, replace(self.nets, adjustment=anet), append_record(self.nets, record))


def _paper_expert(number: int | None, head: LightHead | LightMixture) -> int:
    """The expert that learns from paper, or FOR_ALL. Raises ValueError if the head has no such expert."""
    if number is not None and number not in range(len(head.heads)):
        raise ValueError(
            f"paper_expert: {number} is not one of the {len(head.heads)} experts, which are numbered from 0"
        )
    return FOR_ALL if number is None else number


def _experts(
    experts: list[int] | None, pairs: list[Pair], head: LightHead | LightMixture, on_paper: int, photos: bool
) -> list[tuple[Pair, int]]:
    """Each pair with the expert that learns from it. All but that of paper learn from photographs, if there are any.

    Raises:
        ValueError: a list that does not fit, or leaves an expert without a picture.
    """
    if experts is None:
        return [(pair, FOR_ALL) for pair in pairs]
    sets, count = 1 + max(pair.group for pair in pairs), len(head.heads)
    if len(experts) != sets:
        raise ValueError(
            f"the recipe has experts for {len(experts)} sets, --data names {sets}: name as many, or write a recipe "
            "with experts: null"
        )
    if unknown := [e for e in experts if e not in range(count)]:
        raise ValueError(f"experts: {unknown[0]} is not one of the {count} experts, which are numbered from 0")
    if not photos and (idle := [i for i in range(count) if i not in (*experts, on_paper)]):
        raise ValueError(
            f"experts: no set of --data is for expert {idle[0]}: name one, give --photos, or write experts: null"
        )
    return [(pair, experts[pair.group]) for pair in pairs]


def _taught(scene: SceneNet | None) -> SceneNet | None:
    """The net with the encoder of the shipped segmenter, unless it was fitted before."""
    if scene is not None and not scene.components.any():
        segmenter = load_segmenter(SHIPPED_SEGMENTER).model.state_dict()
        encoder = {key.removeprefix("net."): value for key, value in segmenter.items()}
        state = scene.state_dict()
        scene.load_state_dict({key: encoder.get(key, value) for key, value in state.items()})
    return scene
