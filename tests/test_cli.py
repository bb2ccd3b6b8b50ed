from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jores import training
from jores.checkpoint import build, load_bundle, save_bundle
from jores.cli import build_parser, main
from jores.commands.info import cost
from jores.config import AdjustmentConfig, DecompositionConfig, DenoiserConfig, JoReSConfig, RefinementConfig
from jores.files.pictures import Picture, read_image, write_image
from jores.files.tables import pairs_of_table
from jores.metrics import exposure_error, gt_mean, niqe, psnr, ssim
from jores.pipeline import enhance
from tests.flat import flat

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
FEATURES = (8, 8, 8)
TINY = JoReSConfig(
    name="tiny",
    decomposition=DecompositionConfig(width=8, blocks=1),
    adjustment=AdjustmentConfig((8, *FEATURES), (1, 1, 1, 1), (1, 1, 1), exposure_width=4, grid_width=8),
    denoiser=DenoiserConfig(widths=(8, 8, 8), blocks=(1, 1, 1), heads=1, embedding=16, feature_widths=FEATURES),
    refinement=RefinementConfig(widths=(8, 8), embedding=16, feature_widths=FEATURES),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random nets that do something: the layers that start at zero are filled, too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = build(TINY)
        for net in nets.parts().values():
            for parameter in net.parameters():
                parameter.data += 0.05 * torch.randn_like(parameter)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_bundle(path, nets, {"licence": "CC0-1.0"})
    return path


@pytest.fixture
def dark(tmp_path):
    folder = tmp_path / "dark"
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    write_image(folder / "a.png", Picture(torch.rand(4, 21, 34, generator=generator) * 0.2, 16))
    write_image(folder / "c.tif", Picture(torch.full((3, 1, 1), 0.1)))
    (folder / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


def run(*args: object) -> int:
    return main([str(arg) for arg in args])


EXACT = ("--precision", "float32")  # as the library, which results are compared with


def options(weights: Path) -> tuple[str, ...]:
    return "--weights", str(weights), "--segmenter", "none", "--device", "cpu", "--steps", "2", *EXACT


def test_a_bad_file_is_reported_and_the_others_are_done(dark, weights, tmp_path, capsys):
    out = tmp_path / "out" / "deeper"
    assert run("enhance", dark, "--output", out, *options(weights)) == 1
    captured = capsys.readouterr()
    records = [json.loads(line) for line in captured.out.splitlines()]
    assert [Path(r["input"]).name for r in records] == ["a.png", "b.jpg", "c.tif"]
    assert ["error" in r for r in records] == [False, True, False]
    assert "b.jpg" in records[1]["error"] and "b.jpg" in captured.err
    assert set(records[0]["seconds"]) == {"load", "enhance", "save"} and 0 < records[0]["exposure"] < 1
    assert (records[0]["width"], records[0]["height"]) == (34, 21)
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "c.tif"]

    before, after = read_image(dark / "a.png"), read_image(out / "a.png")
    assert after.bit_depth == 16
    assert torch.equal(after.pixels[3], before.pixels[3])
    assert not torch.equal(after.pixels[:3], before.pixels[:3])
    expected = flat(enhance)(before.pixels[None], load_bundle(weights), steps=2)[0]
    assert (after.pixels - expected).abs().max() <= 0.51 / 65535
    assert read_image(out / "c.tif").pixels.shape == (3, 1, 1)


def test_nothing_of_the_users_is_overwritten_by_accident(dark, weights, tmp_path, capsys):
    out, one = tmp_path / "out", dark / "a.png"
    args = "enhance", one, "--output", out, *options(weights)
    assert run(*args) == 0
    first = (out / "a.png").read_bytes()
    assert run(*args, "--exposure", "0.3") == 1
    assert "exists already; add --overwrite" in capsys.readouterr().err
    assert (out / "a.png").read_bytes() == first
    assert run(*args, "--exposure", "0.3", "--overwrite") == 0
    assert json.loads(capsys.readouterr().out)["exposure"] == 0.3
    assert (out / "a.png").read_bytes() != first

    original = one.read_bytes()
    assert run("enhance", one, "--output", dark, "--overwrite", *options(weights)) == 1
    assert "replace its own input" in capsys.readouterr().err
    assert one.read_bytes() == original
    assert run("enhance", one, out / "a.png", "--output", tmp_path / "both", "--overwrite", *options(weights)) == 1
    assert "another input of this name" in capsys.readouterr().err


def test_strength_zero_returns_the_file_level_by_level(dark, weights, tmp_path):
    assert run("enhance", dark / "a.png", "--output", tmp_path / "out", "--strength", 0, *options(weights)) == 0
    assert torch.equal(read_image(tmp_path / "out" / "a.png").pixels, read_image(dark / "a.png").pixels)


def test_evaluate_tells_raw_from_gt_mean_and_reads_tables_and_folders(weights, tmp_path, capsys):
    generator = np.random.default_rng(0)
    for folder in ("low", "high"):
        (tmp_path / folder).mkdir()
    table = ["id\tscene\tsplit\tlow\thigh"]
    for name, split in (("1", "train"), ("2", "val"), ("3", "val")):
        clean = Image.fromarray(generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((40, 24))
        clean.save(tmp_path / "high" / f"{name}.png")
        clean.point(lambda level: level // 8).save(tmp_path / "low" / f"{name}.webp", lossless=True)
        table.append(f"{name}\t0\t{split}\tlow/{name}.webp\thigh/{name}.png")
    (tmp_path / "pairs.tsv").write_text("\n".join(table), encoding="utf-8")

    report = tmp_path / "scores.json"
    assert run("evaluate", "--pairs-tsv", tmp_path / "pairs.tsv", "--output", report, *options(weights)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "picture" and "PSNR raw" in lines[0] and "PSNR GT-mean" in lines[0]
    scores = json.loads(report.read_text(encoding="utf-8"))
    assert [row["picture"] for row in scores["pictures"]] == ["2", "3"] and lines[-1].startswith("mean of 2")

    low, high = (read_image(tmp_path / name).pixels[None] for name in ("low/2.webp", "high/2.png"))
    result = (flat(enhance)(low, load_bundle(weights), steps=2) * 255).round() / 255
    row = scores["pictures"][0]
    assert row["psnr_raw"] == pytest.approx(psnr(result, high).item(), abs=1e-3)
    assert row["ssim_gt_mean"] == pytest.approx(ssim(gt_mean(result, high), high).item(), abs=1e-4)
    assert row["psnr_gt_mean"] == pytest.approx(psnr(gt_mean(result, high), high).item(), abs=1e-3)
    assert abs(row["psnr_gt_mean"] - row["psnr_raw"]) > 0.01
    assert scores["mean"]["ssim_raw"] == pytest.approx(sum(r["ssim_raw"] for r in scores["pictures"]) / 2)

    assert row["niqe"] is None and lines[-1].split()[-1] == "-"  # too small for NIQE: no verdict, and valid JSON
    assert row["exposure_error"] == pytest.approx(exposure_error(result, high).item(), abs=1e-4)

    folders = "--low", tmp_path / "low", "--high", tmp_path / "high"
    assert run("evaluate", *folders, *options(weights)) == 0
    assert "mean of 3" in capsys.readouterr().out
    (tmp_path / "high" / "3.png").unlink()
    assert run("evaluate", *folders, *options(weights)) == 1
    assert "no ground truth for 3.webp" in capsys.readouterr().err


def test_evaluate_takes_the_picture_of_the_same_name(weights, tmp_path, capsys):
    generator, scores = np.random.default_rng(0), tmp_path / "new" / "scores.json"
    for folder in ("low", "high"):
        (tmp_path / folder).mkdir()
    for name in ("a.bmp", "a.png"):
        clean = Image.fromarray(generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((40, 24))
        clean.save(tmp_path / "high" / name)
        clean.save(tmp_path / "low" / name)
    command = ("evaluate", "--low", tmp_path / "low", "--high", tmp_path / "high", "--output", scores)
    command += ("--overwrite",)
    assert run(*command, *options(weights), "--exposure", 0.5) == 0
    rows = json.loads(scores.read_text(encoding="utf-8"))["pictures"]
    assert [row["picture"] for row in rows] == ["a.bmp", "a.png"]
    (tmp_path / "low" / "a.png").unlink()
    (tmp_path / "low" / "a.bmp").rename(tmp_path / "low" / "a.webp")
    assert run(*command, *options(weights)) == 1
    assert "holds more than one ground truth for a.webp" in capsys.readouterr().err
    (tmp_path / "high" / "a.png").unlink()
    clean.crop((0, 0, 20, 20)).save(tmp_path / "low" / "0.png")
    clean.save(tmp_path / "high" / "0.png")
    clean.save(tmp_path / "low" / "0a.png")
    clean.save(tmp_path / "high" / "0a.png")
    capsys.readouterr()
    assert run(*command, *options(weights)) == 1
    told = capsys.readouterr()
    assert "differ in size: 20x20 and 40x24" in told.err and not told.out  # before any picture is scored


def test_tables_of_other_programs(tmp_path):
    table = tmp_path / "pairs.tsv"
    table.write_text("id\tsplit\tlow\thigh\n1\tval\ta.png\tb.png\n", encoding="utf-8-sig")  # with a mark at its start
    assert [pair.name for pair in pairs_of_table(table, "val")] == ["1"]
    table.write_text("id\tsplit\tlow\thigh\n1\tval\ta.png\tb.png\n2\tval\tc.png\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the row of '2' ends before the columns"):
        pairs_of_table(table, "val")


def test_evaluate_without_ground_truth_gives_niqe_of_input_and_result(weights, tmp_path, capsys):
    picture = torch.rand(3, 100, 200, generator=torch.Generator().manual_seed(2)) * 0.2
    (tmp_path / "night").mkdir()
    write_image(tmp_path / "night" / "a.png", Picture(picture))
    report = tmp_path / "scores.json"
    assert run("evaluate", "--low", tmp_path / "night", "--output", report, *options(weights)) == 0
    out = capsys.readouterr().out
    assert "NIQE input" in out and "PSNR" not in out
    (row,) = json.loads(report.read_text(encoding="utf-8"))["pictures"]
    low = read_image(tmp_path / "night" / "a.png").pixels[None]
    result = (flat(enhance)(low, load_bundle(weights), steps=2) * 255).round() / 255
    assert row["niqe"] == pytest.approx(niqe(result).item(), abs=1e-3)
    assert row["niqe_input"] == pytest.approx(niqe(low).item(), abs=1e-3) and row["niqe"] != row["niqe_input"]


def test_info_counts_what_the_nets_hold_and_prints_the_header(weights, capsys):
    assert run("info", "--weights", weights) == 0
    out = capsys.readouterr().out
    assert "preset compact" in out and "preset paper" in out and "licence: CC0-1.0" in out and "preset tiny" in out
    parameters, flops = cost(TINY)["decomposition"]
    assert parameters == sum(p.numel() for p in build(TINY, ("decomposition",)).decomposition.parameters())
    assert cost(TINY, (512, 256))["decomposition"][1] == 2 * flops > 0


def test_info_prints_the_training_record_a_line_for_each_run(tmp_path, capsys):
    runs = [
        {"stage": "adjust", "step": 7, "minutes": 1.5, "val": {"psnr": 20.0}},
        {"stage": "average", "weights": [0.5]},
    ]
    told = "    adjust: step 7; minutes 1.5\n    average: weights 0.5\n"
    nested = told + "".join(f"  {line}\n" for line in told.splitlines())
    other = {"by": "another program"}
    for record, end in (
        ([runs[0], {**runs[1], "others": [runs]}], nested), (other, f"  training: {json.dumps(other)}\n")
    ):  # fmt: skip
        nets = build(TINY)
        save_bundle(tmp_path / "told.safetensors", nets, {"training": json.dumps(record)})
        assert run("info", "--weights", tmp_path / "told.safetensors") == 0
        assert capsys.readouterr().out.endswith(end)


def test_what_users_get_wrong_is_said_in_a_sentence(dark, weights, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.safetensors").write_text("x")
    out = "--output", tmp_path / "out"
    tail = options(weights)
    for args, message in (
        (("enhance", tmp_path / "empty", *out, *tail), "empty: no picture"),
        (("enhance", dark, *out, *options(tmp_path / "no.safetensors")), "no.safetensors"),
        (("enhance", dark, *out, *tail, "--device", "gpu"), "--device gpu cannot be used"),
        (("enhance", dark, "--output", weights, *tail), "tiny.safetensors"),
        (("evaluate", "--high", dark, *tail), "needs --low"),
        (("evaluate", "--pairs-tsv", weights.parent / "none.tsv", *tail), "none.tsv"),
    ):
        assert run(*args) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run("enhance", dark, *out, "--exposure", "2")
    assert "2 is not between 0.01 and 1" in capsys.readouterr().err


def test_help_needs_no_torch_and_train_is_handed_over():
    program = "import sys; from jores.cli import build_parser; build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
    args = build_parser().parse_args(["train", "--stage", "adjust", "--data", "d", "--out", "o"])
    assert args.run is training.main and args.stage == "adjust"


def test_an_exposure_of_0_is_the_automatic_one_as_on_the_nodes():
    for text, value in (("0", None), ("auto", None), ("0.3", 0.3)):
        assert build_parser().parse_args(["enhance", "in", "--output", "o", "--exposure", text]).exposure == value


def test_runs_as_a_module(dark, weights, tmp_path):
    command = [sys.executable, "-m", "jores", "enhance", str(dark / "c.tif"), "--output", str(tmp_path / "out")]
    result = subprocess.run([*command, *options(weights)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["output"].endswith("c.tif")


@pytest.mark.parametrize("more, told", [
    (["--steps", 2000], "steps must be between 1 and"), (["--steps", -1], "steps must be 0"),
    (["--mask", "none.png"], "none.png"), (["--weights", "none.safetensors"], "none.safetensors: no such file"),
    (["--segmenter", "nowhere"], "nowhere: no config.json"),
])  # fmt: skip
def test_settings_that_cannot_be_used_are_refused_once_and_before_any_picture(tmp_path, weights, capsys, more, told):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "in" / name, Picture(torch.rand(3, 24, 32) * 0.2))
    assert run("enhance", tmp_path / "in", "--output", tmp_path / "out", *options(weights), *more) == 1
    said = capsys.readouterr()
    assert said.err.count(told) == 1 and not said.out and not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [
    {"steps": -1}, {"steps": 2000}, {"exposure": 1.5}, {"exposure": 0.0}, {"eta": -3.0}, {"eta": float("nan")},
])  # fmt: skip
def test_wrong_settings_are_refused_before_any_work(weights, monkeypatch, wrong):
    nets = load_bundle(weights)
    monkeypatch.setattr(nets.dnet, "forward", lambda *_: pytest.fail("the work was begun"))
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be"):
        flat(enhance)(torch.rand(1, 3, 16, 16) * 0.1, nets, **wrong)
