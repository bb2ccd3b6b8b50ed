"""Folders and files as the shell's patterns name them: what is read, what is left out, and what is told of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from jores.cli import main
from tests.files_by_hand import contents, picture


@pytest.fixture
def photos(tmp_path):
    """A folder of two photographs."""
    for name in ("a.png", "b.png"):
        picture(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def enhance(options, capsys):
    """Runs `jores enhance`; returns the exit code, a record of each file by its name, and what is told."""

    def run(*arguments: object) -> tuple[int, dict[str, dict], str]:
        code = main(["enhance", *map(str, arguments), *options])
        captured = capsys.readouterr()
        records = [json.loads(line) for line in captured.out.splitlines()]
        assert len({record["input"] for record in records}) == len(records)
        return code, {Path(record["input"]).name: record for record in records}, captured.err

    return run


def everything(folder: Path) -> list[Path]:
    """What a shell makes of `folder/*`."""
    return sorted(folder.iterdir())


@pytest.mark.parametrize("done", [(), ("a.png",), ("a.png", "b.png")], ids=["none", "half", "all"])
@pytest.mark.parametrize("spelled", ["as it is", "by a link", "by the current folder"])
def test_all_in_a_folder_goes_on_with_its_results_among_it(photos, enhance, monkeypatch, done, spelled):
    """Before: "bright: no picture directly in this folder", or "would replace ..., which this run reads"."""
    out = photos / "bright"
    out.mkdir()
    for name in done:
        (out / name).write_bytes(b"of the first run")
    inputs, given = everything(photos), out
    if spelled == "by a link":
        given = photos.parent / "link"
        given.symlink_to(out, target_is_directory=True)
    elif spelled == "by the current folder":
        monkeypatch.chdir(photos)
        inputs, given = [Path(path.name) for path in inputs], Path("bright")
    code, records, told = enhance(*inputs, "--output", given, "--resume")
    assert (code, told) == (0, "") and sorted(records) == ["a.png", "b.png"]
    assert {name for name, record in records.items() if record.get("skipped")} == set(done)
    assert all((out / name).read_bytes() == b"of the first run" for name in done)


def test_all_in_a_folder_is_done_anew_over_its_results(photos, enhance):
    before = contents(photos)
    assert enhance(*everything(photos), "--output", photos / "bright")[0] == 0
    made = contents(photos / "bright")
    assert enhance(*everything(photos), "--output", photos / "bright")[0] == 1  # they exist
    (photos / "bright" / "a.png").write_bytes(b"old")
    code, records, told = enhance(*everything(photos), "--output", photos / "bright", "--overwrite")
    assert (code, told) == (0, "") and len(records) == 2 and contents(photos / "bright") == made
    assert {path: data for path, data in contents(photos).items() if path in before} == before


@pytest.mark.parametrize("inside", [(), ("a.txt", "deeper/c.png")], ids=["empty", "with other things"])
@pytest.mark.parametrize("first", [True, False])
def test_a_folder_without_pictures_stops_no_others(photos, enhance, inside, first):
    notes = photos / ("0 notes" if first else "notes")
    notes.mkdir()
    for name in inside:
        (notes / name).parent.mkdir(exist_ok=True)
        (notes / name).touch()
    code, records, told = enhance(*everything(photos), "--output", photos.parent / "out")
    assert code == 0 and sorted(records) == ["a.png", "b.png"]
    assert f"1 folder(s) left out, with no picture or film directly in them ({notes})" in told
    assert ("1 .txt" in told) == ("deeper" in told) == bool(inside)


def test_folders_without_pictures_alone_are_an_error(photos, enhance):
    for name in ("x", "y/z"):
        (photos.parent / name).mkdir(parents=True)
    before = contents(photos.parent)
    code, records, told = enhance(photos.parent / "y", photos.parent / "x", "--output", photos.parent / "out")
    assert code == 1 and not records and contents(photos.parent) == before and not (photos.parent / "out").exists()
    assert "y: no picture directly in this folder" in told and "the 1 folder(s) in it are not searched" in told


def test_results_that_are_named_from_elsewhere_are_read(photos, enhance):
    """A folder that no pattern can have named is meant."""
    other = picture(photos.parent / "more" / "a.png", 0.3)
    before = contents(photos.parent)
    code, records, told = enhance(photos / "a.png", other.parent, "--output", other.parent, "--overwrite")
    assert code == 1 and not records and "would replace" in told and contents(photos.parent) == before


READ = (".png", ".tiff", ".mp4", ".m2ts", ".heic", ".avif", "camera raw (", ".cr3", ".nef")


def test_every_kind_that_is_read_is_told(photos, enhance):
    """Before: without camera raw, HEIC and AVIF."""
    (photos / "notes.txt").write_text("mine")
    (photos / "text.png").write_text("mine")
    (photos / "empty").mkdir()
    code, records, _ = enhance(*everything(photos), "--output", photos.parent / "out")
    assert code == 1 and "error" not in records["a.png"]
    assert all(kind in records["notes.txt"]["error"] for kind in READ)
    assert all(kind in records["text.png"]["error"] for kind in ("TIFF", "HEIC", "AVIF"))
    code, _, told = enhance(photos / "empty", "--output", photos.parent / "out")
    assert code == 1 and all(kind in told for kind in READ)


def test_what_must_be_installed_for_a_kind_is_told(photos, enhance, monkeypatch):
    for module in ("rawpy", "pillow_heif"):
        monkeypatch.setitem(sys.modules, module, None)
    (photos / "notes.txt").write_text("mine")
    told = enhance(photos / "notes.txt", "--output", photos.parent / "out")[2]
    assert "pip install rawpy" in told and "pip install pillow-heif" in told


@pytest.mark.parametrize("name", ["lwo", "lwo.png", "lwo.nef", "lwo.mp4"])
def test_a_name_of_nothing_is_told_as_that(photos, enhance, name):
    """Before: a folder's name was "not a kind of file that is read"."""
    code, records, told = enhance(photos / name, photos, "--output", photos.parent / "out")
    assert code == 1 and sorted(records) == sorted(["a.png", "b.png", name])
    assert name in told and "no such file" in told.lower()


@pytest.mark.parametrize("missing", ["--low", "--high", "--pairs-tsv"])
@pytest.mark.parametrize("name", ["lwo", "lwo.png"])
def test_a_missing_folder_of_pairs_is_named(photos, options, capsys, missing, name):
    """Before: "high: holds no ground truth for lwo of lwo"."""
    given = {"--low": photos, "--high": photos, missing: photos.parent / name}
    given = {missing: given[missing]} if missing == "--pairs-tsv" else given
    assert main(["evaluate", *(str(word) for pair in given.items() for word in pair), *options]) == 1
    told = capsys.readouterr().err
    assert "o such f" in told and name in told and str(photos) not in told
    assert missing == "--pairs-tsv" or f"{missing} {photos.parent / name}: no such folder" in told


def unwritable(folder: Path) -> Path:
    """A folder in which nobody can make a file; for root, whom no rights stop, one of the system's own."""
    if hasattr(os, "geteuid") and os.geteuid():
        folder.mkdir()
        folder.chmod(0o555)
        return folder
    return Path("/proc/self")


@pytest.mark.skipif(sys.platform != "linux", reason="no folder there is closed to everybody")
@pytest.mark.parametrize("command", ["enhance", "evaluate"])
@pytest.mark.parametrize("place", ["there", "to be made", "below a file"])
def test_an_output_that_cannot_be_written_is_told_by_its_option(tmp_path, photos, options, capsys, command, place):
    """Before: by the name of a hidden file, which is tried there; by `evaluate`, at the end of the work."""
    closed = photos / "a.png" if place == "below a file" else unwritable(tmp_path / "closed")
    folder = closed if place == "there" else closed / "new"
    given = (
        ["--low", photos, "--output", folder / "scores.json"] if command == "evaluate" else [photos, "--output", folder]
    )
    assert main([command, *map(str, given), *options]) == 1
    captured = capsys.readouterr()
    assert f"--output {folder}: cannot be written to: " in captured.err and "nothing was done" in captured.err
    assert ".tmp" not in captured.err and not captured.out


@pytest.mark.skipif(sys.platform != "linux", reason="no folder there is closed to everybody")
@pytest.mark.parametrize("place", ["there", "to be made", "below a file"])
def test_a_run_folder_that_cannot_be_written_is_told_before_the_data_is_read(tmp_path, photos, capsys, place):
    closed = photos / "a.png" if place == "below a file" else unwritable(tmp_path / "closed")
    folder = closed if place == "there" else closed / "new"
    missing = tmp_path / "no data"
    assert main(["train", "--stage", "decompose", "--data", str(missing), "--out", str(folder)]) == 1
    told = capsys.readouterr().err
    assert f"--out {folder}: cannot be written to: " in told and "nothing was done" in told
    assert str(missing) not in told and ".tmp" not in told
