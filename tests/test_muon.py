"""The optimiser for hidden convolutions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from jores.training.loop import LoopConfig
from jores.training.muon import COEFFICIENTS, ITERATIONS, Muon, is_hidden, orthogonalised


@pytest.mark.parametrize("shape", [(48, 432), (64, 64), (96, 48)])
def test_orthogonalised_is_the_quintic_iteration_on_the_matrix_itself(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).double() + 0.1
    x, (a, b, c) = matrices / matrices.norm(dim=(1, 2), keepdim=True), COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + b * gram @ x + c * gram @ gram @ x
    made = orthogonalised(matrices)
    assert (made - x).abs().max() < 1e-3
    values = torch.linalg.svdvals(made)
    assert values[:, : min(shape) // 2].min() > 0.6 and values.max() < 1.3


def test_a_step_has_adamws_size_whatever_the_gradients():
    for size in (1e-6, 1.0, 1e6):
        p = nn.Parameter(torch.zeros(64, 64, 3, 3))
        optimizer = Muon([p], lr=0.01, weight_decay=0.0)
        p.grad = size * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
        optimizer.step()
        assert 0.1 * 0.01 < p.detach().square().mean().sqrt() < 0.4 * 0.01


def test_a_step_may_leave_all_of_them_alone():
    hidden, other = nn.Parameter(torch.ones(48, 48, 1, 1)), nn.Parameter(torch.ones(3))
    optimizer = Muon([hidden, other], lr=0.01, weight_decay=0.1)
    other.grad = torch.ones(3)
    optimizer.step()
    assert (hidden == 1).all() and (other < 1).all()


def test_only_convolutions_between_feature_maps_are_orthogonalised():
    net = nn.Sequential(nn.Conv2d(44, 64, 3), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 24, 3))
    assert [n for n, p in net.named_parameters() if is_hidden(p)] == ["1.weight"]
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = Muon(list(net.parameters()), lr=0.01, weight_decay=0.0)
    net(torch.rand(1, 44, 9, 9)).sum().backward()
    optimizer.step()
    for p, old in zip(net.parameters(), before, strict=True):
        assert not torch.equal(p, old)
    kept = {tuple(sorted(state)) for state in optimizer.state.values()}
    assert kept == {("momentum", "step"), ("exp_avg", "exp_avg_sq", "step")}


def test_it_goes_on_from_its_state_as_if_it_had_not_stopped():
    def step(p, optimizer, seed):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
        optimizer.step()

    whole = nn.Parameter(torch.zeros(48, 48, 3, 3))
    optimizer = Muon([whole], lr=0.01, weight_decay=0.1)
    step(whole, optimizer, 1)
    cut = nn.Parameter(whole.detach().clone())
    resumed = Muon([cut], lr=0.5, weight_decay=0.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(whole, optimizer, 2)
    step(cut, resumed, 2)
    assert torch.equal(whole, cut)


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="optimizer 'sgd' is not one of adamw, muon"):
        LoopConfig(optimizer="sgd")
