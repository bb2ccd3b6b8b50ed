"""A second device for machines that have none: what is on it is computed on the processor, and told apart.

PyTorch lets a processor's tensors meet an accelerator's in few places. Code that was only ever run on a processor does
it everywhere without knowing. Under `other_device` the device "meta" holds real numbers, and a mixture raises what an
accelerator would raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
aten = torch.ops.aten
CROSSING = {aten._to_copy.default, aten.copy_.default}
METAL = {aten._upsample_bilinear2d_aa.default, torch.float64, torch.complex128}
"""Operators and dtypes that PyTorch up to 2.6 is without on Apple's GPUs."""
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}  # take a processor's indices


class Elsewhere(Tensor):
    """A tensor that says it is on the other device; its numbers are in `twin`."""

    twin: Tensor

    @staticmethod
    def __new__(cls, twin: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls, twin.shape, strides=twin.stride(), storage_offset=twin.storage_offset(), dtype=twin.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.twin = twin
        return made

    def __repr__(self) -> str:
        return f"Elsewhere({self.twin!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


_lacking: set[Any] = set()


@contextmanager
def other_device(lacking: Iterable[Any] = ()) -> Iterator[None]:
    """Within it the device "meta" holds numbers; operators and dtypes in `lacking` are refused there."""
    _lacking.update(lacking)
    try:
        with _Computed(), _MadeOfNumbers():
            yield
    finally:
        _lacking.difference_update(lacking)


class _Computed(TorchDispatchMode):
    """Also catches what is made on the device from nothing, such as torch.zeros(..., device="meta")."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:
            return run(func, args, kwargs or {})


class _MadeOfNumbers(TorchFunctionMode):
    """Tensors of Python's numbers, which PyTorch makes below the reach of the other mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.new_tensor:
            like, *args = args
            func, kwargs = torch.tensor, {"dtype": like.dtype, "device": like.device, **kwargs}
        if func is Tensor.__getitem__:
            args = (args[0], _indices(args[1]))
        device = kwargs.get("device")
        if func is torch.tensor and device is not None and torch.device(device) == DEVICE:
            return torch.tensor(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        return func(*args, **kwargs)


def _indices(given: Any) -> Any:
    if isinstance(given, tuple):
        return tuple(_indices(i) for i in given)
    return torch.tensor(given) if isinstance(given, list) else given


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Inference mode hands on compound operations as a whole: first takes them apart."""
    made = func.decompose(*args, **kwargs)
    return compute(func, args, kwargs) if made is NotImplemented else made


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    asked = kwargs.get("device")
    if func not in CROSSING and func not in INDEXING and len({t.device for t in given if t.ndim}) > 1:
        places = ", ".join(f"{tuple(t.shape)} on {t.device}" for t in given)
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {places}")
    there = any(isinstance(t, Elsewhere) for t in given) if asked is None else torch.device(asked) == DEVICE
    if func is aten.copy_.default:
        there = isinstance(given[0], Elsewhere)
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    twins = tree_map(lambda t: t.twin if isinstance(t, Elsewhere) else t, (args, kwargs))
    owners = {id(t.twin): t for t in given if isinstance(t, Elsewhere)}
    with _disable_current_modes():
        made = func(*twins[0], **twins[1])
    if not there:
        return made
    if wanting := _lacking & {func, *(t.dtype for t in tree_flatten(made)[0] if isinstance(t, Tensor))}:
        raise NotImplementedError(f"{func}: the device is without {wanting}")

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return owners[id(value)] if id(value) in owners else Elsewhere(value)

    return tree_map(wrap, made)


def move(net: nn.Module) -> nn.Module:
    """Puts a net's parameters and buffers on the other device."""
    state = {name: Elsewhere(value.detach()) for name, value in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    return net.requires_grad_(False)
