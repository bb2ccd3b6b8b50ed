"""The rooms keep their rules: imports point down, no function is too long to read, nobody steps around the types."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import dev

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    ("jores/limits", "jores/out_of_memory"),
    ("jores/tiling",),
    ("jores/config", "jores/conditions", "jores/options"),
    ("jores/imaging",),
    ("jores/nets", "jores/diffusion", "jores/files"),
    ("jores/budget", "jores/semantics", "jores/checkpoint", "jores/metrics"),
    ("jores/picture_statistics", "jores/precision"),
    ("jores/retinex",),
    ("jores/pipeline",),
    ("jores/video",),
    ("jores/commands", "jores/training", "nodes"),
    ("jores/cli",),
    ("jores/__main__",),
)

LONGEST = 48  # lines of a function, with its docstring


def floor_of(name: str) -> int:
    (found,) = (i for i, rooms in enumerate(FLOORS) if any(name == r or name.startswith(f"{r}/") for r in rooms))
    return found


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax tree of every file, by its path without suffix; a package by the path of its folder."""
    files = [file for folder in ("jores", "nodes") for file in (ROOT / folder).rglob("*.py")]
    names = {file: file.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__") for file in files}
    return {name: ast.parse(file.read_text("utf-8")) for file, name in names.items()}


@cache
def imports() -> dict[str, set[str]]:
    """What each file imports of the others, relative imports alone (there are no others of our own)."""
    graph: dict[str, set[str]] = {}
    for name, tree in trees().items():
        package = name.split("/") if (ROOT / name).is_dir() else name.split("/")[:-1]
        graph[name] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                module = "/".join(filter(None, base))
                found = (full if (full := f"{module}/{alias.name}") in trees() else module for alias in node.names)
                graph[name] |= set(found) - {name}
    return graph


def test_imports_point_down_or_to_the_same_floor() -> None:
    up = [f"{a} -> {b}" for a, found in imports().items() if a != "jores" for b in found if floor_of(b) > floor_of(a)]
    assert sum(map(len, imports().values())) > 200 and not up


def test_no_files_import_each_other() -> None:
    left = {name: set(found) for name, found in imports().items()}
    while free := [name for name, found in left.items() if not found & left.keys()]:
        for name in free:
            del left[name]
    assert not left


def test_no_file_hides_a_module_of_python() -> None:
    """`python path/to/jores` puts that folder before Python's own."""
    assert not {path.stem for path in (ROOT / "jores").iterdir()} & sys.stdlib_module_names


def test_no_function_is_long_and_none_has_many_parameters() -> None:
    long, many = [], []
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                count = len(
                    [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
                )
                count -= bool(given.args) and given.args[0].arg in ("self", "cls")
                # parameters of `execute` are the inputs of a node; a schema is a list that reads best in one piece
                first = node.body[0].lineno if node.name == "execute" else node.lineno
                if node.end_lineno - first >= LONGEST and node.name != "define_schema":
                    long.append(f"{name}: {node.name}")
                if count > 8 and node.name != "execute":
                    many.append(f"{name}: {node.name}")
    assert not long and not many


def test_enhance_reads_from_top_to_bottom() -> None:
    functions = {n.name: n for n in ast.walk(trees()["jores/pipeline"]) if isinstance(n, ast.FunctionDef)}
    enhance, stages = functions["enhance_by"], functions["sampled"]
    first = enhance.body[1]  # behind the docstring
    assert 5 < enhance.end_lineno - first.lineno + 1 <= 15
    called = {n.func.id for n in ast.walk(enhance) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"enhance", "enhance_by"} and {"finish", "reduced"} <= called
    calls = sorted((n.lineno, n.func.attr) for n in ast.walk(stages)
                   if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute))  # fmt: skip
    assert [name for _, name in calls] == ["decompose", "adjust", "segment", "sample"]
    order = ["enhance", "enhance_by", "_Run", "segment", "sample", "_Loop"]  # the loop of UNet and RNet comes last
    there = [node.name for node in trees()["jores/pipeline"].body if getattr(node, "name", "") in order]
    assert there == order


def test_the_types_are_stepped_around_no_more_often_than_before() -> None:
    counts = dev.loose_types()
    assert counts["lines with Any"] and all(count <= dev.LOOSE[name][1] for name, count in counts.items())
