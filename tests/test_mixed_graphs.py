"""Good graphs between bad and patched ones, on one real server: each is what it is alone, bit by bit."""

from __future__ import annotations

from tests.benchmarks.mixed_graphs import run


def test_good_graphs_are_untouched_by_what_ran_before(comfy_tree, tmp_path):
    """python -m tests.benchmarks.mixed_graphs runs a hundred, and looks at the memory."""
    kinds, failures, _memory = run(tmp_path, 16, (48, 32))
    assert not failures and kinds == {"good": 8, "patched": 4, "bad": 4}
