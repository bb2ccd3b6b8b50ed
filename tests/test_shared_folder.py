"""Several runs into one folder, and names that are too long for it: nobody's result is lost, and no batch ends."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jores.cli import main
from jores.commands.enhancer import Enhancer
from jores.files.saving import write_atomically
from tests.files_by_hand import picture
from tests.films import write_film


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "this file system has no hard links")


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_want_a_name_one_gets_it(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)

    def write(number: int) -> bool:
        try:
            write_atomically(tmp_path / "a.png", bytes([number]) * 100_000, replace=False)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(write, range(40)))
    assert done.count(True) == 1 and list(tmp_path.iterdir()) == [tmp_path / "a.png"]
    assert (tmp_path / "a.png").read_bytes() == bytes([done.index(True)]) * 100_000


@pytest.mark.parametrize("name", ["x.png", "x.mkv"])
@pytest.mark.parametrize("how", [[], ["--resume"], ["--overwrite"]])
def test_a_result_that_another_run_made_meanwhile_is_kept(tmp_path, options, capsys, monkeypatch, how, name):
    """Before: the second run replaced it without a word."""
    path, target = tmp_path / name, tmp_path / "out" / name
    picture(path) if name == "x.png" else write_film(path, "ffv1", count=3)
    of_picture, of_film = Enhancer.__call__, Enhancer.frames

    def meanwhile(work):
        def worked(*arguments):
            target.write_bytes(b"of another run")
            return work(*arguments)

        return worked

    monkeypatch.setattr(Enhancer, "__call__", meanwhile(of_picture))
    monkeypatch.setattr(Enhancer, "frames", meanwhile(of_film))
    code, told = main(["enhance", str(path), "--output", str(target.parent), *how, *options]), capsys.readouterr()
    assert (target.read_bytes() == b"of another run") == (how != ["--overwrite"])
    assert code == int(not how) and list(target.parent.iterdir()) == [target]
    assert ("another program meanwhile" in told.err) == (not how) and ('"skipped"' in told.out) == (how == ["--resume"])


@pytest.mark.parametrize("suffix", [".heic", ".dng"])
def test_a_result_whose_name_is_too_long_is_one_failure(tmp_path, options, capsys, monkeypatch, suffix):
    """`.tif` is added to the name. Before: the batch ended, and nothing was done."""
    long = tmp_path / ("y" * (254 - len(suffix)) + suffix)
    try:
        long.write_bytes(b"not looked at")
    except OSError:
        pytest.skip("this file system's names are shorter")
    short = picture(tmp_path / "x.png")
    assert main(["enhance", str(long), str(short), "--output", str(tmp_path / "out"), *options]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert "too long" in first["error"] and long.name in first["error"] and Path(second["output"]).is_file()
