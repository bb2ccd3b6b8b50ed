"""Windows that slide over a picture: the same numbers as PyTorch's pooling, with a fraction of its work."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

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


class Counter(TorchDispatchMode):
    """Names of the operations, and how many numbers they have made."""

    def __init__(self):
        super().__init__()
        self.names, self.made = set(), 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.names.add(operation.name())
        if isinstance(result, torch.Tensor) and not operation.is_view:
            self.made += result.numel()
        return result


@pytest.mark.parametrize("sliding, step", [(sliding_max, 3.0), (sliding_mean, 5.0)])
def test_the_work_on_a_pixel_grows_with_the_logarithm_of_the_side(sliding, step):
    """Pooling looks at side * side numbers for each."""
    x = torch.rand(1, 1, 512, 512)
    for side in (3, 7, 15, 31, 63):
        with Counter() as counter:
            sliding(x, side)
        assert counter.made / x.numel() < step * (side.bit_length() + 1), side
        assert not any("pool" in name or "conv" in name or "unfold" in name for name in counter.names)
