"""Windows that slide over a picture: the same numbers as PyTorch's pooling, in a fraction of its time."""

from __future__ import annotations

import time

import pytest
import torch
from torch.nn import functional as F

from jores.imaging.sliding import sliding_max, sliding_mean


def pooled_max(x, side):
    return F.max_pool2d(x, side, stride=1, padding=side // 2)


def pooled_mean(x, side):
    return F.avg_pool2d(x, side, stride=1, padding=side // 2, count_include_pad=False)


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (5, 3), (40, 33), (64, 130)])
@pytest.mark.parametrize("side", [1, 3, 15, 17, 31])
def test_it_is_what_pooling_gives(size, side):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
    assert torch.equal(sliding_max(x, side), pooled_max(x, side))
    torch.testing.assert_close(sliding_mean(x, side), pooled_mean(x, side))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_narrow_dtype_is_kept_and_not_summed_in(dtype):
    x = torch.rand(1, 1, 50, 60, generator=torch.Generator().manual_seed(1)).to(dtype)
    mean = sliding_mean(x, 31)
    assert mean.dtype == sliding_max(x, 31).dtype == dtype
    exact = pooled_mean(x.double(), 31)
    rounded = torch.finfo(dtype).eps * (4 if dtype == torch.float32 else 0.51)
    torch.testing.assert_close(mean.double(), exact, rtol=rounded, atol=0)


def test_gradients_pass():
    x = torch.rand(1, 1, 20, 20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sliding_mean(x, 5), (x,))
    sliding_max(x, 5).sum().backward()
    assert float(x.grad.sum()) == pytest.approx(400)


def test_it_is_many_times_faster_than_pooling():
    x = torch.rand(1, 1, 512, 512)

    def seconds(work):
        def once():
            start = time.process_time()
            work()
            return time.process_time() - start

        return min(once() for _ in range(5))

    for ours, theirs, side in ((sliding_max, pooled_max, 31), (sliding_mean, pooled_mean, 17)):
        assert 3 * seconds(lambda ours=ours, side=side: ours(x, side)) < seconds(
            lambda theirs=theirs, side=side: theirs(x, side)
        )
