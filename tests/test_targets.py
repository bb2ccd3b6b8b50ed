"""Nothing of the user's is replaced, run or left half-written, and a failure stays its file's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from jores.checkpoint import save_bundle
from jores.cli import main
from jores.commands import enhance
from jores.commands.enhancer import Enhancer
from jores.files.pictures import Picture, write_image
from jores.files.records import json_line
from jores.files.saving import write_atomically
from jores.files.targets import TargetError, ignores_case, plan
from jores.training.records import append_record, contact_sheet
from tests.files_by_hand import contents, picture
from tests.tiny import TINY, shaken

ROOT = Path(__file__).resolve().parents[1]


def spellings(folder: Path) -> dict[str, tuple[list[Path], Path]]:
    """Inputs and an output folder by which a result would replace another input of the same run."""
    a, b = picture(folder / "A" / "x.png"), picture(folder / "B" / "x.png", 0.2)
    (folder / "C").mkdir()
    (folder / "C" / "x.png").symlink_to(b)
    (folder / "D").mkdir()
    os.link(b, folder / "D" / "x.png")
    (folder / "E").symlink_to(folder / "B", target_is_directory=True)
    return {
        "as it is spelled": ([a, b], b.parent),
        "by another path": ([a, folder / "A" / ".." / "B" / "x.png"], b.parent),
        "by a linked folder": ([a, b], folder / "E"),
        "by a symbolic link": ([a, b], folder / "C"),
        "by a hard link": ([a, b], folder / "D"),
        "by a folder that is an input": ([a, b.parent], b.parent),
    }


@pytest.mark.parametrize("kind", ["as it is spelled", "by another path", "by a linked folder", "by a symbolic link",
                                  "by a hard link", "by a folder that is an input"])  # fmt: skip
def test_no_result_replaces_another_input_of_the_run(tmp_path, options, capsys, kind):
    inputs, output = spellings(tmp_path)[kind]
    before = contents(tmp_path)
    assert main(["enhance", *map(str, inputs), "--output", str(output), "--overwrite", *options]) == 1
    captured = capsys.readouterr()
    assert "would replace" in captured.err and "nothing was done" in captured.err and not captured.out
    assert contents(tmp_path) == before


def test_the_mask_and_the_weights_are_read_too(tmp_path, options, capsys):
    inputs = [picture(tmp_path / "in" / name) for name in ("mask.png", "tiny.png")]
    mask = picture(tmp_path / "out" / "mask.png", 1.0)
    before = contents(tmp_path)
    command = ["enhance", *map(str, inputs), "--output", str(mask.parent), "--overwrite", *options]
    assert main([*command, "--mask", str(mask)]) == 1
    assert "mask.png, which this run reads" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("names", [("x.png", "x.png"), ("n.tif", "n.tif"), ("a b.jpg", "a b.jpg")])
def test_two_inputs_with_one_target_are_refused_before_any_work(tmp_path, options, capsys, names):
    inputs = [picture(tmp_path / folder / name) for folder, name in zip("ab", names, strict=True)]
    inputs.insert(0, picture(tmp_path / "first.png"))
    assert main(["enhance", *map(str, inputs), "--output", str(tmp_path / "out"), "--overwrite", *options]) == 1
    captured = capsys.readouterr()
    assert "another input of this name" in captured.err and not captured.out
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "pair", [("x.png", "X.png"), ("Stra\u00dfe.jpg", "STRASSE.JPG"), ("e\u0301.png", "\u00e9.png")]
)
def test_names_that_are_one_on_other_disks(tmp_path, pair):
    inputs = [picture(tmp_path / folder / name) for folder, name in zip("ab", pair, strict=True)]
    with pytest.raises(TargetError, match="another input of this name"):
        plan(inputs, tmp_path, lambda path: path.name, case_insensitive=True)
    assert len(plan(inputs, tmp_path, lambda path: path.name, case_insensitive=False)) == 2
    assert ignores_case(tmp_path) == (tmp_path / "A").exists() and not list(tmp_path.glob(".*"))


def test_one_file_given_twice_is_done_once(tmp_path, options, capsys):
    path = picture(tmp_path / "in" / "x.png")
    (tmp_path / "link").symlink_to(path.parent, target_is_directory=True)
    inputs = [path, tmp_path / "in" / ".." / "in" / "x.png", tmp_path / "link" / "x.png"]
    assert main(["enhance", *map(str, inputs), "--output", str(tmp_path / "out"), *options]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_folders_that_stand_in_the_way_are_named_before_the_work(tmp_path, options, capsys):
    path = picture(tmp_path / "x.png")
    (tmp_path / "out" / "x.png").mkdir(parents=True)
    assert main(["enhance", str(path), "--output", str(tmp_path / "out"), "--overwrite", *options]) == 1
    assert "x.png is a folder" in capsys.readouterr().err
    assert main(["enhance", str(path), "--output", str(path / "deeper"), *options]) == 1
    assert "x.png" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["low/1.png", "pairs.tsv", "high/1.png"])
def test_a_report_replaces_nothing_that_was_scored(tmp_path, options, capsys, name):
    picture(tmp_path / "low" / "1.png"), picture(tmp_path / "high" / "1.png", 0.5)
    (tmp_path / "pairs.tsv").write_text("id\tsplit\tlow\thigh\n1\tval\tlow/1.png\thigh/1.png\n")
    before = contents(tmp_path)
    table = ["--pairs-tsv", str(tmp_path / "pairs.tsv")]
    assert main(["evaluate", *table, "--output", str(tmp_path / "low" / ".." / name), *options]) == 1
    assert "which this run reads" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("error", [ArithmeticError("odd"), LookupError("odd"), RuntimeError("odd")])
def test_an_error_that_nobody_expected_stays_its_files(tmp_path, options, capsys, monkeypatch, error):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "in" / name)

    def odd(path):
        if path.name == "b.png":
            raise error
        return real(path)

    real = enhance.read_image
    monkeypatch.setattr(enhance, "read_image", odd)
    assert main(["enhance", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *options]) == 1
    captured = capsys.readouterr()
    assert ["error" in json.loads(line) for line in captured.out.splitlines()] == [False, True, False]
    assert f"b.png: {type(error).__name__}" in captured.err and "1 of 3 files failed" in captured.err


def test_a_file_that_no_decoder_knows_does_not_end_the_batch(tmp_path, options, capsys):
    pytest.importorskip("av")
    picture(tmp_path / "z.png")
    film = tmp_path / "unknown.mp4"
    film.write_bytes(unknown_codec())
    (tmp_path / "empty.png").touch()
    (tmp_path / "odd.xyz").write_bytes(b"?")
    inputs = [film, tmp_path / "empty.png", tmp_path / "odd.xyz", tmp_path / "z.png"]
    assert main(["enhance", *map(str, inputs), "--output", str(tmp_path / "out"), *options]) == 1
    captured = capsys.readouterr()
    records = [json.loads(line) for line in captured.out.splitlines()]
    assert ["error" in record for record in records] == [True, True, True, False]
    assert "empty.png: the file is empty" in captured.err and "odd.xyz: not a kind of file" in captured.err
    assert "3 of 4 files failed" in captured.err


def unknown_codec() -> bytes:
    """A film whose codec has a name that no decoder answers to."""
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov") as writer:
        stream = writer.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuvj420p"
        for _ in range(3):
            writer.mux(stream.encode(av.VideoFrame(16, 16, "yuvj420p")))
        writer.mux(stream.encode(None))
    return buffer.getvalue().replace(b"jpeg", b"zzzz")


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_run_that_is_told_to_end_leaves_nothing_half_written(tmp_path, name):
    program = """
        import signal, sys, time
        from pathlib import Path
        from jores.commands.signals import exit_on_signal
        from jores.files import saving
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which is ignored under nohup, and stays so
        path = Path(sys.argv[1])
        def slow(temporary, target, **_):
            print("writing", flush=True)
            time.sleep(60)
        saving.rename_atomically = slow
        with exit_on_signal():
            saving.write_atomically(path, b"half")
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "a.png")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        time.sleep(0.1)
        process.send_signal(getattr(signal, name))
        assert process.wait(30) == 128 + getattr(signal, name)
    assert not list(tmp_path.iterdir())


WRITERS = {
    "picture": lambda path: picture(path), "bundle": lambda path: save_bundle(path, shaken(TINY)),
    "sheet": lambda path: contact_sheet([torch.zeros(3, 4, 4)], path),
    "report": lambda path: write_atomically(path, b"{}"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_is_named_only_after_its_bytes_are_on_the_disk(tmp_path, monkeypatch, kind):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    WRITERS[kind](tmp_path / "a.png")
    assert order[:2] == ["fsync", "replace"] and [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_json_has_neither_nan_nor_infinity():
    record = {"a": float("inf"), "b": [float("nan"), 1.5, {"c": -float("inf")}], "d": (1, "x")}
    assert json.loads(json_line(record)) == {"a": None, "b": [None, 1.5, {"c": None}], "d": [1, "x"]}


@pytest.mark.parametrize("score", [float("inf"), float("-inf"), float("nan")])
def test_the_header_of_a_bundle_is_valid_json(score):
    header = append_record(shaken(TINY), {"stage": "adjust", "val": {"psnr": score, "steps": [score, 1]}})
    record = json.loads(header["training"], parse_constant=lambda name: pytest.fail(name))[-1]
    assert record["val"] == {"psnr": None, "steps": [None, 1]}


def test_an_infinite_score_is_valid_json(tmp_path, options):
    low = tmp_path / "low"
    low.mkdir()
    write_image(low / "1.png", Picture(torch.full((3, 16, 16), 0.1)))
    exact = ["--precision", "float32"]  # which `evaluate` takes by itself
    assert main(["enhance", str(low), "--output", str(tmp_path / "high"), *options, *exact]) == 0
    folders = ["--low", str(low), "--high", str(tmp_path / "high")]
    assert main(["evaluate", *folders, "--output", str(tmp_path / "scores.json"), *options]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert scores["pictures"][0]["psnr_raw"] is None and scores["pictures"][0]["ssim_raw"] == 1
    (tmp_path / "scores.json").write_text("mine")
    assert main(["evaluate", *folders, "--output", str(tmp_path / "scores.json"), *options]) == 1
    assert (tmp_path / "scores.json").read_text() == "mine"
    assert main(["evaluate", *folders, "--output", str(tmp_path / "scores.json"), "--overwrite", *options]) == 0
    assert json.loads((tmp_path / "scores.json").read_text()) == scores


@pytest.mark.parametrize("seed", ["0", "18446744073709551614", "18446744073709551615"])
def test_every_seed_that_is_taken_works(tmp_path, options, seed):
    path = picture(tmp_path / "x.png")
    assert main(["enhance", str(path), "--output", str(tmp_path / "out"), "--seed", seed, *options]) == 0


@pytest.mark.parametrize("seed", ["-1", "18446744073709551616", "99999999999999999999999"])
def test_a_seed_that_is_none_is_refused_at_once(tmp_path, options, seed, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["enhance", "x.png", "--output", str(tmp_path), f"--seed={seed}", *options])
    assert "is not between 0 and 18446744073709551615" in capsys.readouterr().err


def test_what_is_skipped_in_folders_is_named(tmp_path, options, capsys):
    picture(tmp_path / "in" / "a.png")
    for name in ("b.gif", "c.GIF", "d.psd", ".hidden.gif"):
        (tmp_path / "in" / name).touch()
    (tmp_path / "in" / "inner.png").mkdir()
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    assert main(["enhance", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *options]) == 0
    assert "skipped in the folders" in (told := capsys.readouterr().err)
    assert "2 .gif" in told and "1 .psd" in told and ".png:" not in told
    assert f"1 entry(s) are no files, or links to nothing ({tmp_path / 'in' / 'gone.png'})" in told
    inner = tmp_path / "in" / "inner.png"
    assert f"1 folder(s) inside were not searched: name them, too ({inner})" in told
    own = ["--output", str(tmp_path / "in" / "bright"), "--resume"]
    assert [main(["enhance", str(tmp_path / "in"), *own, *options]) for _ in range(2)] == [0, 0]
    assert f"name them, too ({inner})" in capsys.readouterr().err  # not its own results
    assert main(["enhance", str(tmp_path), "--output", str(tmp_path / "out"), *options]) != 0
    assert "the 2 folder(s) in it are not searched: name them" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "told"), [("bright.jpg", "names a folder, not a file .jpg"), ("notes", "is a file")])
def test_output_is_a_folder(tmp_path, options, capsys, name, told):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "notes").write_text("mine")
    assert main(["enhance", str(tmp_path / "in"), "--output", str(tmp_path / name), *options]) != 0
    assert told in capsys.readouterr().err and (tmp_path / "notes").read_text() == "mine"
    assert not (tmp_path / "bright.jpg").exists()


def test_enhancers_keep_alpha_out_of_the_exposure(tmp_path, options):
    """The exposure that a JSON line tells is that of what is seen."""
    from jores.cli import build_parser

    args = build_parser().parse_args(["enhance", "x", "--output", "y", *options])
    enhancer = Enhancer.from_args(args)
    pixels = torch.full((4, 20, 20), 0.1)
    pixels[3, :, 10:] = 0
    told = []
    for hidden in (0.0, 0.5, 1.0):
        pixels[:3, :, 10:] = hidden
        told.append(enhancer(pixels)[1])
    assert told[0] == told[1] == told[2]
