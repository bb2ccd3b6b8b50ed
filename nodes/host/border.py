"""What every node does around its work: numbers are checked, and errors of the pack's own classes become plain ones."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Iterator
from numbers import Integral, Real

from comfy_api.latest import io

from .checks import expect

PACK = __name__.rsplit(".nodes.", 1)[0]


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turns errors of the pack's own classes into ValueError with the same message.

    The host shows the name of an error's class with that of its module, which is a path on the disk of the user.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(PACK):
            raise
        raise ValueError(str(error)) from error


def guarded(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, whose `execute` refuses numbers out of the schema's range and raises `plain_errors`.

    The host checks the numbers in widgets, but none that comes from another node.
    """
    work = node.execute.__func__
    signature = inspect.signature(work)

    @functools.cache
    def numbers() -> tuple[str, list[io.Int.Input | io.Float.Input]]:
        schema = node.define_schema()
        return schema.display_name or "", [s for s in schema.inputs if isinstance(s, io.Int.Input | io.Float.Input)]

    @functools.wraps(work)
    def execute(cls: type[io.ComfyNode], *values: object, **inputs: object) -> io.NodeOutput:
        given, (name, slots) = signature.bind_partial(cls, *values, **inputs).arguments, numbers()
        for slot in slots:
            if slot.id in given:
                check_number(given[slot.id], slot, name)
        with plain_errors():
            return work(cls, *values, **inputs)

    node.execute = classmethod(execute)
    return node


def check_number(value: object, slot: io.Int.Input | io.Float.Input, node: str) -> None:
    """Raises ValueError for what is no number, no whole one for an INT, or out of the range of the input `slot`."""
    where = "the node that is linked to it"
    if isinstance(slot, io.Int.Input):
        number = int(expect(value, Integral, node, slot.id, f"give a whole number in {where}"))
    else:
        number = float(expect(value, Real, node, slot.id, f"give a number in {where}"))
    low, high = (-math.inf if slot.min is None else slot.min), (math.inf if slot.max is None else slot.max)
    if not low <= number <= high:
        shown = [f"{bound:g}" if isinstance(bound, float) else bound for bound in (low, high)]
        raise ValueError(
            f"{node}: {slot.id} must be between {shown[0]} and {shown[1]}, not {value}: change it in {where}"
        )
