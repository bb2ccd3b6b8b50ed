"""Conditionings that stock nodes have joined: what would give grey, or two pictures through each other, is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.graphs import SIZE, conditioned, ksample, our_sample, refine, run, scene

pytestmark = pytest.mark.slow
SAMPLERS = ["ours", "stock"]


def sampled(host, sampler, given, model, **changed):
    """The picture that `given` becomes, with some of its wires `changed`."""
    wired = SimpleNamespace(**{**vars(given), **changed})
    if sampler == "ours":
        return our_sample(host, wired, 2, model=model)
    return ksample(host, model, wired)["samples"]


def lit(host, graph, exposure):
    """The condition of the one picture in another light, and its positive."""
    retinex = run(host, "JoReSDecompose", nets=graph.nets, image=scene(0))[0]
    condition = run(host, "JoReSAdjust", nets=graph.nets, retinex=retinex, exposure=exposure, denoise=1.0)[0]
    return condition, run(host, "JoReSCondition", condition=condition)[0]


@pytest.fixture(scope="module")
def one(host, graph):
    return conditioned(host, graph.plain, graph.nets, scene(0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_rnet_with_another_light_is_refused(host, graph, one, sampler):
    brighter, positive = lit(host, graph, 0.7)
    with pytest.raises(ValueError, match="Apply RNet Refinement: condition has another light .* 'Condition JoReS Diff"):
        sampled(host, sampler, one, one.model, positive=positive)
    model = refine(host, graph.plain, graph.nets, brighter)
    right = sampled(host, sampler, one, model, positive=positive)
    again, _ = lit(host, graph, 0.7)  # made anew, and the same
    same = refine(host, graph.plain, graph.nets, again)
    assert torch.equal(sampled(host, sampler, one, same, positive=positive), right)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_regions_with_lights_of_their_own_go_without_rnet(host, graph, one, sampler, caplog):
    area, lights = host.stock.ConditioningSetAreaPercentage(), []
    for place, exposure in enumerate((0.3, 0.7)):
        lights += area.append(lit(host, graph, exposure)[1], 0.5, 1.0, place / 2, 0, 1.0)[0]
    left, right = sampled(host, sampler, one, graph.plain, positive=lights).chunk(2, 3)
    assert left[..., :-8].mean() < right[..., 8:].mean() - 0.2
    condition, positive = lit(host, graph, 0.3)
    model = refine(host, graph.plain, graph.nets, condition)
    sampled(host, sampler, one, model, positive=positive)
    assert "lights of their own" not in caplog.text
    sampled(host, sampler, one, model, positive=lights)
    assert caplog.text.count("bypass this node where regions have lights of their own") == 1
    with pytest.raises(ValueError, match="condition has another light"):
        sampled(host, sampler, one, one.model, positive=lights)


def parts(host, positive, kind):
    """A positive for a part alone, and one for the rest."""
    nodes, mask = host.stock, torch.zeros(1, *SIZE)
    mask[..., : SIZE[1] // 2] = 1
    if kind == "a half by percentage":
        area = nodes.ConditioningSetAreaPercentage()
        return area.append(positive, 0.5, 1.0, 0, 0, 1.0)[0], area.append(positive, 0.5, 1.0, 0.5, 0, 1.0)[0]
    if kind == "an area in eighths of a pixel":
        return nodes.ConditioningSetArea().append(positive, SIZE[1], SIZE[0], 0, 0, 1.0)[0], positive
    if kind == "steps":
        steps = nodes.ConditioningSetTimestepRange()
        return steps.set_range(positive, 0.0, 0.4)[0], steps.set_range(positive, 0.4, 1.0)[0]
    if kind == "no strength":
        return nodes.ConditioningSetAreaStrength().append(positive, 0.0)[0], positive
    masks = nodes.ConditioningSetMask()
    if kind == "a black mask":
        return masks.append(positive, mask * 0, "default", 1.0)[0], positive
    return masks.append(positive, mask, "default", 1.0)[0], masks.append(positive, 1 - mask, "default", 1.0)[0]


KINDS = ["a half by percentage", "an area in eighths of a pixel", "steps", "no strength", "a black mask", "a mask"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_no_conditioning_speaks_of_is_refused(host, graph, one, sampler, kind):
    part, rest = parts(host, one.positive, kind)
    where = "step . of 2" if kind in ("steps", "no strength", "a black mask") else "a part of the picture"
    with pytest.raises(ValueError, match=f"positive says nothing of {where}, which would come out plain grey"):
        sampled(host, sampler, one, one.model, positive=part)
    both, whole = (sampled(host, sampler, one, one.model, positive=p) for p in (part + rest, one.positive))
    assert (both - whole).abs().mean() < 0.01  # each half is drawn without sight of the other


def test_a_mask_where_the_latent_comes_back_elsewhere(host, graph, one):
    """The noise mask of the host covers what the positive's mask leaves out."""
    part, mask = parts(host, one.positive, "a mask")[0], torch.zeros(1, *SIZE)
    mask[..., : SIZE[1] // 2] = 1
    before = one.condition.low * 2 - 1
    latent = host.stock.SetLatentNoiseMask().set_mask({**one.latent, "samples": before}, mask)[0]
    made = sampled(host, "stock", one, one.model, positive=part, latent=latent)
    torch.testing.assert_close(made[..., SIZE[1] // 2 :], before[..., SIZE[1] // 2 :], atol=1e-4, rtol=0)
    assert (made - before)[..., : SIZE[1] // 2].abs().mean() > 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nodes_that_join_texts_are_refused(host, graph, one, sampler):
    average, join = host.stock.ConditioningAverage(), host.stock.ConditioningConcat()
    _, other = lit(host, graph, 0.7)
    for mixed in (
        average.addWeighted(one.positive, other, 0.5)[0],
        average.addWeighted(one.positive, other, 0.0)[0],
        join.concat(one.positive, other)[0],
    ):
        with pytest.raises(ValueError, match="'ConditioningAverage' or 'ConditioningConcat' made"):
            sampled(host, sampler, one, one.model, positive=mixed)
    right = sampled(host, sampler, one, one.model)
    alone, zero = average.addWeighted(one.positive, other, 1.0)[0], host.stock.ConditioningZeroOut()
    for harmless in (alone, zero.zero_out(one.positive)[0]):
        assert torch.equal(sampled(host, sampler, one, one.model, positive=harmless), right)


@pytest.mark.parametrize("place", ["positive", "negative at cfg 2", "negative of a sampler that uses it at cfg 1"])
def test_conditionings_of_two_pictures_are_refused_without_rnet_too(host, graph, one, place):
    other = conditioned(host, graph.plain, graph.nets, scene(1))
    joined = {"positive": one.positive + other.positive} if place == "positive" else {"negative": other.negative}
    how = {"cfg": 1.0, "sampler_name": "euler_cfg_pp"} if "sampler" in place else {"cfg": 2.0}
    with pytest.raises(ValueError, match="conditionings of different pictures for one place"):
        ksample(host, graph.plain, SimpleNamespace(**{**vars(one), **joined}), **how)
    unused = SimpleNamespace(**{**vars(one), "negative": other.negative})
    assert torch.equal(ksample(host, graph.plain, unused)["samples"], ksample(host, graph.plain, one)["samples"])


def test_two_pictures_that_do_not_meet(host, graph, one):
    """Half of one and half of the other, as of a bracket of exposures."""
    other, masks = conditioned(host, graph.plain, graph.nets, scene(1)), host.stock.ConditioningSetMask()
    left = torch.zeros(1, *SIZE)
    left[..., : SIZE[1] // 2] = 1
    both = [
        *masks.append(one.positive, left, "default", 1.0)[0], *masks.append(other.positive, 1 - left, "default", 1.0)[0]
    ]  # fmt: skip
    made = ksample(host, graph.plain, SimpleNamespace(**{**vars(one), "positive": both}))["samples"]
    singles = [ksample(host, graph.plain, given)["samples"] for given in (one, other)]
    assert (made - torch.where(left[:, None] > 0, *singles)).abs().mean() < 0.03  # they see each other at the seam


def test_halves_that_the_host_rounds_apart(host, graph):
    """Of 45 rows, which it gives 22 and 22: the last one is nobody's."""
    odd = conditioned(host, graph.plain, graph.nets, scene(0)[:, :45, :])
    area = host.stock.ConditioningSetAreaPercentage()
    halves = [part for top in (0, 0.5) for part in area.append(odd.positive, 1.0, 0.5, 0, top, 1.0)[0]]
    for sampler in SAMPLERS:
        assert torch.isfinite(sampled(host, sampler, odd, odd.model, positive=halves)).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_default_counts_where_it_is_in_force(host, one, sampler):
    part, rest = parts(host, one.positive, "a mask")
    default = [[text, {**options, "default": True}] for text, options in one.positive]
    sampled(host, sampler, one, one.model, positive=part + default)
    early = host.stock.ConditioningSetTimestepRange().set_range(default, 0.0, 0.3)[0]
    with pytest.raises(ValueError, match="positive says nothing of a part of the picture"):
        sampled(host, sampler, one, one.model, positive=part + early)
