"""Other ways by which a run could replace a file of its own, or run code of somebody else."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest

from jores.checkpoint import SHIPPED_SEGMENTER
from jores.cli import main
from jores.nets.segmentation import SegmenterError
from jores.semantics import load_segmenter
from tests.files_by_hand import picture


@pytest.mark.parametrize("kind", ["weights", "segmenter's config", "segmenter's weights", "by a link", "LPIPS"])
def test_a_report_replaces_no_other_file_of_the_run(tmp_path, options, capsys, monkeypatch, kind):
    picture(tmp_path / "low" / "1.png"), picture(tmp_path / "high" / "1.png", 0.5)
    folder, lpips = tmp_path / "seg", tmp_path / "lpips.safetensors"
    shutil.copytree(SHIPPED_SEGMENTER, folder)
    lpips.write_bytes(b"weights")
    (tmp_path / "link.json").symlink_to(tmp_path / "low" / "1.png")
    monkeypatch.setenv("JORES_LPIPS", str(lpips))
    target = {
        "weights": Path(options[1]), "segmenter's config": folder / "config.json", "LPIPS": lpips,
        "segmenter's weights": folder / "model.safetensors", "by a link": tmp_path / "link.json",
    }[kind]  # fmt: skip
    before = target.read_bytes()
    command = ["evaluate", "--low", str(tmp_path / "low"), "--high", str(tmp_path / "high"), "--output", str(target)]
    assert main([*command, *options, "--segmenter", str(folder)]) == 1
    assert "which this run reads" in capsys.readouterr().err and target.read_bytes() == before


@pytest.fixture
def without_inodes(tmp_path, monkeypatch):
    """A folder as a drive on SFTP or WebDAV shows it."""
    real, folder = Path.stat, tmp_path / "drive"

    def stat(self, **how):
        status = real(self, **how)
        on_drive = Path(os.path.abspath(self)).is_relative_to(folder)
        return os.stat_result((status[0], 0, *status[2:])) if on_drive else status

    monkeypatch.setattr(Path, "stat", stat)
    folder.mkdir()
    return folder


def test_a_drive_without_inodes(without_inodes, options, capsys):  # noqa: F811
    """Before: all its files counted as one."""
    pictures = [picture(without_inodes / folder / name) for folder, name in (("a", "1.png"), ("a", "2.png"))]
    (without_inodes / "a" / "inner").mkdir()
    command = ["enhance", str(pictures[0].parent), "--output", str(without_inodes / "a" / "out"), *options]
    for way in ([], ["--resume"]):
        assert main([*command, *way]) == 0
        told = capsys.readouterr()
        assert [json.loads(line)["input"] for line in told.out.splitlines()] == list(map(str, pictures))
        assert f"1 folder(s) inside were not searched: name them, too ({pictures[0].parent / 'inner'})" in told.err
    twice = [str(pictures[0]), str(pictures[0].parent / ".." / "a" / "1.png")]
    assert main(["enhance", *twice, "--output", str(without_inodes / "b"), *options]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["enhance", twice[0], "--output", str(pictures[0].parent), "--overwrite", *options]) == 1
    assert "its own input" in capsys.readouterr().err
    namesake = picture(without_inodes / "c" / "1.png", 0.2)  # which was left out without a word
    assert main(["enhance", twice[0], str(namesake), "--output", str(without_inodes / "d"), *options]) == 1
    assert "another input of this name" in capsys.readouterr().err


def test_patterns_are_expanded_where_no_shell_does_it(tmp_path, options, capsys):  # noqa: F811
    """Neither cmd nor PowerShell does."""
    names = ["b.png", "a.png", ".hidden.png", "a[1].png", "n.tif"]
    folder = picture(tmp_path / "on [a] trip" / names[0]).parent
    inputs = [picture(folder / name) for name in names]
    if os.name != "nt":  # where no name can hold a star
        inputs.append(picture(tmp_path / "a*.png"))
    given = [folder / "?.png", folder / "a[1].png", tmp_path / "on*" / "n.*", *inputs[5:]]
    assert main(["enhance", *map(str, given), "--output", str(tmp_path / "out"), *options]) == 0
    done = [Path(json.loads(line)["input"]) for line in capsys.readouterr().out.splitlines()]
    assert done == [folder / "a.png", folder / "b.png", folder / "a[1].png", folder / "n.tif", *inputs[5:]]
    assert main(["enhance", str(folder / "*.jpg"), str(inputs[0]), "--output", str(tmp_path / "out"), *options]) == 1
    told = capsys.readouterr()
    assert told.err == f"jores: no file fits {folder / '*.jpg'}\n" and not told.out


@pytest.mark.parametrize("names", [("n.dng", "n.dng.tif"), ("n.NEF", "n.NEF.tif"), ("n.heic", "n.heic.tif")])
def test_a_developed_picture_and_one_of_its_results_name(tmp_path, options, capsys, names):
    first, second = (tmp_path / folder / name for folder, name in zip("ab", names, strict=True))
    picture(second)
    first.parent.mkdir()
    first.write_bytes(b"raw")
    assert main(["enhance", str(first), str(second), "--output", str(tmp_path / "out"), *options]) == 1
    assert "another input of this name" in capsys.readouterr().err and not list((tmp_path / "out").iterdir())
    command = ["enhance", str(first), str(second), "--output", str(second.parent), "--overwrite", *options]
    assert main(command) == 1 and second.stat().st_size > 100  # where the name is an input's


@pytest.mark.parametrize("how", [[], ["--resume"], ["--overwrite"]])
def test_a_link_to_a_file_that_is_away_is_a_result_that_exists(tmp_path, options, capsys, how):
    """For instance to a disk that is not mounted now."""
    path, link = picture(tmp_path / "x.png"), tmp_path / "out" / "x.png"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "away.png")
    code = main(["enhance", str(path), "--output", str(link.parent), *how, *options])
    told = capsys.readouterr()
    assert (code, link.is_symlink()) == (int(not how), how != ["--overwrite"])
    assert ("exists already" in told.err) == (not how) and ('"skipped"' in told.out) == (how == ["--resume"])


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


AUTO_MAP = {"AutoConfig": "evil.EvilConfig", "AutoModelForSemanticSegmentation": "evil.Evil"}


def foreign_folders(root: Path, ran: Path) -> list[Path]:
    """Folders that would run code of their own, if anything in them were followed."""
    config = json.loads((SHIPPED_SEGMENTER / "config.json").read_text("utf-8"))
    evil = pickle.dumps({"weight": Touch(ran)})
    index = {"metadata": {}, "weight_map": {"a": "a.bin"}}
    hub = {name: f"someone/else--{kind}" for name, kind in AUTO_MAP.items()}
    kinds = {
        "pickle": (config, {"pytorch_model.bin": evil}),
        "shard": (config, {"model.safetensors.index.json": json.dumps(index).encode(), "a.bin": evil}),
        "hub": (config | {"auto_map": hub, "model_type": "evil"}, {}),
        "adapter": (config, {"adapter_config.json": json.dumps({"base_model_name_or_path": "../pickle"}).encode()}),
    }  # fmt: skip
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass EvilConfig: pass\nclass Evil: pass\n"
    for name, (settings, files) in kinds.items():
        folder = root / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(settings), "utf-8")
        (folder / "evil.py").write_text(code)
        if name not in ("pickle", "shard"):
            shutil.copy(SHIPPED_SEGMENTER / "model.safetensors", folder)
        for file, data in files.items():
            (folder / file).write_bytes(data)
    return [root / name for name in kinds]


def test_no_file_of_a_segmenters_folder_is_run(tmp_path, monkeypatch):
    ran, found = tmp_path / "ran", {}
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody at the terminal was asked"))
    for folder in foreign_folders(tmp_path, ran):
        try:
            load_segmenter(folder)
            found[folder.name] = "loaded"
        except SegmenterError as error:
            found[folder.name] = "refused by name" if str(folder) in str(error) else str(error)
    assert not ran.exists()
    assert found == dict.fromkeys(found, "refused by name") | {"adapter": "loaded"}  # which nobody follows
