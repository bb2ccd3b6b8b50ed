"""Averages the weights of bundles, to reduce forgetting after further training on new pictures.

    python -m jores.training.average OUT BUNDLE BUNDLE ... --weights W W ...

After WiSE-FT (Wortsman et al., CVPR 2022): an average of the weights before and after further training is often better
on old and new pictures than either. It works only for bundles with a common training history.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import JoReSNets, held_parts, load_bundle, save_bundle
from ..files.targets import refuse_existing, refuse_inputs
from .records import append_record, training_record


def averaged(paths: list[Path], weights: list[float]) -> JoReSNets:
    """The weighted average of the nets in the bundles.

    The result has the header of the last bundle. Its training record gets an entry for the average, which lists under
    "others" the stages of each other bundle that are not in the last bundle's record.

    Args:
        paths: two bundles or more, with the same config and the parts of the last one.
        weights: one for each bundle, normalised to a sum of 1.

    Raises:
        ValueError: the number of weights differs from that of bundles, there are fewer than two bundles, their sum is
            not above 0, or the configs differ.
        CheckpointError: see `load_bundle`.
    """
    if len(paths) != len(weights) or len(paths) < 2:
        raise ValueError(f"{len(weights)} weights for {len(paths)} bundles; give two bundles or more, and one for each")
    if not 0 < sum(weights) < math.inf:  # NaN is not, either
        raise ValueError(f"the weights {' '.join(map(str, weights))} must be finite, with a sum above 0")
    parts = held_parts(paths[-1])
    bundles = [load_bundle(path, parts=parts) for path in paths]
    if any(nets.config != bundles[-1].config for nets in bundles):
        raise ValueError(f"the bundles differ in their config: {', '.join(map(str, paths))}")
    result, shares = bundles[-1], torch.tensor(weights, dtype=torch.float64) / sum(weights)
    states = [{name: part.state_dict() for name, part in nets.parts().items()} for nets in bundles]
    for name, part in result.parts().items():
        part.load_state_dict({
            key: _sum(share * state[name][key].double() for share, state in zip(shares, states, strict=True)).to(value)
            for key, value in states[-1][name].items()
        })  # fmt: skip
    *others, own = (training_record(nets) for nets in bundles)
    record = {"stage": "average", "weights": [round(share, 4) for share in shares.tolist()]}
    result.metadata = append_record(result, {**record, "others": [_since_parting(other, own) for other in others]})
    return result


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, tensors)


def _since_parting(record: list, own: list) -> list:
    shared = 0
    while shared < min(len(record), len(own)) and record[shared] == own[shared]:
        shared += 1
    return record[shared:]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="the last gives header and config")
    parser.add_argument("--weights", type=float, nargs="+", required=True, metavar="W", help="one for each bundle")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing OUT")
    args = parser.parse_args(argv)
    try:
        refuse_inputs(args.out, args.bundles, "OUT")
        refuse_existing(args.out, args.overwrite, "OUT")
        save_bundle(args.out, averaged(args.bundles, args.weights))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
