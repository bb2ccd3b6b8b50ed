"""A result that the system refuses to replace, as Windows does while it is open: no work is done for nothing."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from contextlib import contextmanager
from threading import Timer

import pytest

from jores.cli import main
from jores.commands.enhancer import Enhancer
from jores.files import saving
from jores.files.pictures import read_image
from jores.files.saving import rename_atomically
from jores.files.targets import held
from tests.files_by_hand import contents, picture
from tests.films import write_film

MEANS = ["by the system", "by chance"]


class Lock:
    """Locks a file against being replaced: by the file system where this user may (root, on ext4, btrfs or XFS; the
    read-only mark on Windows), or in `os.replace` alone."""

    def __init__(self, monkeypatch, real):
        self.real, self.locked = real, set()
        replace = os.replace

        def refusing(source, target):
            if os.fspath(target) in self.locked:
                raise PermissionError(13, "Access is denied", os.fspath(source), None, os.fspath(target))
            replace(source, target)

        if not real:
            monkeypatch.setattr(os, "replace", refusing)

    def set(self, path, on=True):
        if not self.real:
            (self.locked.add if on else self.locked.discard)(str(path))
        elif sys.platform == "win32":
            path.chmod(stat.S_IREAD if on else stat.S_IREAD | stat.S_IWRITE)
        else:
            try:
                subprocess.run(["chattr", "+i" if on else "-i", str(path)], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("no file can be locked here")

    @contextmanager
    def __call__(self, path):
        self.set(path)
        try:
            yield
        finally:
            self.set(path, False)


@pytest.fixture
def lock(request, monkeypatch):
    return Lock(monkeypatch, getattr(request, "param", MEANS[0]) == MEANS[0])


def source(path):
    picture(path) if path.suffix == ".png" else write_film(path, "ffv1", count=3)
    return path


def older(path):
    path.parent.mkdir()
    path.write_bytes(b"an older result")
    return path


@pytest.mark.parametrize("name", ["x.png", "x.mkv"])
def test_what_cannot_be_replaced_is_told_before_the_work(tmp_path, options, capsys, lock, name):  # noqa: F811
    picture(tmp_path / "in" / "z.png")
    source(tmp_path / "in" / name)
    target = older(tmp_path / "out" / name)
    command = ["enhance", str(tmp_path / "in"), "--output", str(target.parent), "--overwrite", *options]
    before = target.read_bytes(), target.stat().st_mtime_ns
    with lock(target):
        assert main(command) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert f"{target} cannot be replaced" in told[0]["error"] and "error" not in told[1]
    assert (target.read_bytes(), target.stat().st_mtime_ns) == before
    assert sorted(p.name for p in target.parent.iterdir()) == [name, "z.png"]
    assert main(command) == 0 and target.read_bytes() != before[0]


@contextmanager
def locked_meanwhile(monkeypatch, lock, target, for_seconds=None):
    """The target is locked while it is worked on."""
    of_picture, of_film = Enhancer.__call__, Enhancer.frames
    timers = []

    def meanwhile(work):
        def worked(*arguments):
            lock.set(target)
            if for_seconds is not None:
                timers.append(Timer(for_seconds, lock.set, (target, False)))
                timers[-1].start()
            return work(*arguments)

        return worked

    monkeypatch.setattr(Enhancer, "__call__", meanwhile(of_picture))
    monkeypatch.setattr(Enhancer, "frames", meanwhile(of_film))
    try:
        yield
    finally:
        for timer in timers:
            timer.join()
        lock.set(target, False)


@pytest.mark.parametrize("lock", MEANS, indirect=True)
@pytest.mark.parametrize("name", ["x.png", "x.mkv"])
def test_work_whose_place_is_held_at_the_end_is_kept_beside_it(tmp_path, options, capsys, monkeypatch, lock, name):  # noqa: F811
    """Before: it was deleted."""
    path, target = source(tmp_path / name), older(tmp_path / "out" / name)
    (mine := target.with_name(f"x.new{target.suffix}")).write_bytes(b"mine")
    before, command = target.read_bytes(), ["enhance", str(path), "--output", str(target.parent), "--overwrite"]
    monkeypatch.setattr(saving, "PAUSES", (0.01,))
    with locked_meanwhile(monkeypatch, lock, target):
        assert main([*command, *options]) == 1
    told, kept = json.loads(capsys.readouterr().out)["error"], target.with_name(f"x.new2{target.suffix}")
    assert f"{name} cannot be replaced: " in told and f"kept as {kept}" in told
    assert (target.read_bytes(), mine.read_bytes()) == (before, b"mine")
    assert sorted(target.parent.iterdir()) == sorted([target, mine, kept])
    monkeypatch.undo()
    assert main([*command, *options]) == 0 and target.stat().st_size == kept.stat().st_size  # UIDs are drawn


@pytest.mark.parametrize("lock", MEANS, indirect=True)
def test_a_moment_is_waited_for(tmp_path, options, monkeypatch, lock):  # noqa: F811
    """As a virus scanner or an indexer takes it."""
    path, target = picture(tmp_path / "x.png"), picture(tmp_path / "out" / "x.png")
    command = ["enhance", str(path), "--output", str(target.parent), "--overwrite", *options]
    monkeypatch.setattr(saving, "PAUSES", (0.5,) * 20)
    with locked_meanwhile(monkeypatch, lock, target, for_seconds=1.5):
        assert main(command) == 0
    assert read_image(target).pixels.mean() != read_image(path).pixels.mean() and len(contents(target.parent)) == 1


def test_a_report_that_cannot_be_replaced_is_told_before_the_work(tmp_path, options, capsys, lock):  # noqa: F811
    picture(tmp_path / "low" / "1.png")
    (report := tmp_path / "scores.json").write_text("mine")
    command = ["evaluate", "--low", str(tmp_path / "low"), "--output", str(report), "--overwrite", *options]
    with lock(report):
        assert main(command) == 1
    captured = capsys.readouterr()
    assert f"--output {report}: cannot be replaced" in captured.err and not captured.out


def test_a_long_name_is_kept_under_another(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "PAUSES", ())
    (work := tmp_path / "work").write_bytes(b"work")
    (target := tmp_path / ("y" * 251 + ".png")).mkdir()  # which no file replaces
    with pytest.raises(OSError, match="kept as"):
        rename_atomically(work, target)
    (kept,) = (p for p in tmp_path.iterdir() if p != target)
    assert kept.read_bytes() == b"work" and kept.suffix == ".png"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names there")
def test_only_files_are_tried(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a reader
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert [held(tmp_path / name) for name in ("pipe", "link", "none", ".")] == ["", "", "", ""]
    assert not (tmp_path / "nowhere").exists()
