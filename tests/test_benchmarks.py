"""The tools behind the model card: every row switches off what it names, no pair is lost in a table."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from jores.checkpoint import SHIPPED_SEGMENTER, load_bundle, save_bundle
from jores.files.pictures import Picture, read_image, write_image
from jores.files.tables import rows_of_table
from jores.nets.attention import RetinexAttention
from jores.semantics import load_segmenter
from tests.benchmarks import ablation, drawn, failure_cases, texture, unkind_light
from tests.tiny import FLOW, TINY, shaken

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_bundle(path, shaken(TINY))
    return path


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "flow.safetensors"
    save_bundle(path, shaken(FLOW))
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Four pairs of two scenes, just large enough for NIQE; the darker, the higher the number."""
    folder, generator = tmp_path_factory.mktemp("pairs"), torch.Generator().manual_seed(0)
    rows = ["id\tscene\tsplit\tlow\thigh"]
    for i in range(4):
        coarse = torch.rand(1, 3, 12, 24, generator=generator)
        high = torch.nn.functional.interpolate(coarse, size=(96, 192), mode="bicubic")[0].clamp(0, 1)
        high = (high + torch.randn(high.shape, generator=generator) * 0.02).clamp(0, 1)
        write_image(folder / f"high{i}.png", Picture(high))
        write_image(folder / f"low{i}.png", Picture(high * 0.3 / (i + 1)))
        rows.append(f"{i}\tscene {i // 2}\tval\tlow{i}.png\thigh{i}.png")
    (folder / "pairs.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "pairs.tsv"


def test_every_row_differs_from_the_whole_and_leaves_the_nets_as_they_were(weights, pairs):
    nets, segmenter = load_bundle(weights), load_segmenter(SHIPPED_SEGMENTER)
    low, high = (read_image(pairs.parent / f"{key}0.png").pixels[None] for key in ("low", "high"))
    rows = ablation.variants(nets, segmenter, [1, 4], low, high)
    assert [*rows] == ["1 step", "4 steps", *ablation.PARTS]
    whole = rows["4 steps"]()
    for name, make in rows.items():
        picture = make()
        assert picture.shape == low.shape and picture.min() >= 0 and picture.max() <= 1
        assert name == "4 steps" or not torch.equal(picture, whole), name
    assert torch.equal(ablation.variants(nets, segmenter, [4], low, high)["4 steps"](), whole)


def test_silence_and_absence_are_what_they_say(weights):
    nets = load_bundle(weights)
    attention = next(m for m in nets.denoiser.modules() if isinstance(m, RetinexAttention))
    h = torch.rand(1, 16, 4, 6)
    prior = attention.guide(torch.rand(1, attention.embed.in_channels, 4, 6))
    with ablation.without(nets.denoiser, RetinexAttention):
        assert torch.equal(attention(h, prior), h)
    with ablation.silenced(attention):
        assert not attention(h, prior).any()
    assert not torch.equal(attention(h, prior), h) and attention(h, prior).any()


def test_tables_count_every_pair_in_every_grouping(weights, pairs):
    written = []
    names = ["R' x L' alone", "1 step"]
    args = ["--pairs-tsv", str(pairs), "--weights", str(weights), "--steps", "1"]
    ablation.main([*args, "--rows", *names, "--detail", "1 step"], written.append)
    lines = [line for line in "".join(written).splitlines() if line.startswith("| ")]
    tables, cells = {}, [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for first, *rest in cells:
        if "PSNR raw" in rest:
            current = tables.setdefault(first, {})
            assert rest[1:] == [ablation.COLUMNS[key] for key in ablation.ORDER if key != "lpips"]  # no --lpips
        else:
            current[first] = rest
    variants, darkness, scenes = tables.values()
    assert {name: row[0] for name, row in variants.items()} == dict.fromkeys(names, "4")
    assert [row[0] for row in darkness.values()] == ["1", "1", "2"] and len(scenes) == 2
    for table in (darkness, scenes):
        mean = sum(int(row[0]) * float(row[1]) for row in table.values()) / 4
        assert mean == pytest.approx(float(variants["1 step"][1]), abs=2e-3)
    assert "NIQE of the inputs" in "".join(written) and "proposed exposure" in "".join(written)


def test_a_row_that_does_not_exist_is_named(pairs, capsys):
    with pytest.raises(SystemExit, match="2"):
        ablation.main(["--pairs-tsv", str(pairs), "--rows", "without luck"])
    assert "no such row: without luck" in capsys.readouterr().err


def test_the_worst_cases_are_on_the_sheet(weights, pairs, tmp_path, capsys):
    sheet = tmp_path / "failures.jpg"
    options = ["--weights", str(weights), "--worst", "1", "--steps", "1", "--width", "120"]
    failure_cases.main(["--pairs-tsv", str(pairs), "--output", str(sheet), *options])
    first, second = capsys.readouterr().out.splitlines()
    nets, segmenter = load_bundle(weights), load_segmenter(SHIPPED_SEGMENTER)
    scores = {}
    for row in rows_of_table(pairs, "val"):
        (record,) = ablation.measure(nets, segmenter, row, pairs.parent, [1], ["1 step"])
        scores[row["id"]] = record
    noisiest = min(scores, key=lambda name: scores[name]["psnr_gt_mean"])
    astray = max(scores, key=lambda name: scores[name]["exposure_error"])
    assert first.startswith(f"lowest GT-mean PSNR: {noisiest}:") and f"{scores[noisiest]['psnr_gt_mean']:.2f}" in first
    assert second.startswith(f"largest exposure error: {astray}:")
    with Image.open(sheet) as image:
        rows, height = 2, 60 + failure_cases.CAPTION + failure_cases.MARGIN
        assert image.format == "JPEG" and image.size == (8 + 4 * 128, failure_cases.CAPTION + rows * height)
        assert not math.isclose(image.getpixel((60, 80))[0], 255)  # a picture, not paper


def test_photographs_can_be_spoilt_beyond_repair():
    spoilt = {name: (low, high) for name, low, high in failure_cases.spoilt_photographs()}
    assert len(spoilt) == 5
    for low, high in spoilt.values():
        assert low.shape == high.shape and 0 < low.mean() < 0.7 * high.mean()


def test_every_unkind_light_has_its_rows_and_its_pictures(weights, tmp_path):
    generator, sheet, said = torch.Generator().manual_seed(0), tmp_path / "sheet.png", []
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 24, generator=generator), size=(96, 192))[0]
    write_image(tmp_path / "lit.png", Picture(picture * 0.7 + 0.2))
    write_image(tmp_path / "dark.png", Picture(picture * 0.2))  # not for this table
    rows = unkind_light.ROWS[:2]
    options = ["--every", "1", "--weights", str(weights), "--sheet", str(sheet), "--rows", *rows]
    unkind_light.main(["--pictures", str(tmp_path / "lit.png"), str(tmp_path / "dark.png"), *options], said.append)
    lines = said[0].splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [f"| {way}: {row}" for way in unkind_light.WAYS for row in rows]
    assert all(line.split(" | ")[1] == "1" for line in lines)
    figures = {tuple(line.split(" | ")[2:]) for line in lines}
    assert len(figures) == len(lines)  # no way and no row is another's twin
    with Image.open(sheet) as image:
        assert image.size == (4 * 192, len(unkind_light.WAYS) * 96)


def test_texture_prints_every_row_for_every_kind_of_light(tmp_path, weights, flow, pairs):
    write_image(tmp_path / "photo.png", Picture(read_image(pairs.parent / "high0.png").pixels[..., :96]))
    printed: list[str] = []
    arguments = [
        str(pairs),
        "--pictures",
        str(tmp_path),
        "--weights",
        str(flow),
        "--former",
        str(weights),
        "--every",
        "2",
    ]
    sheet = tmp_path / "sheet.png"
    texture.main([*arguments, "--steps", "1", "4", "--textures", "0.25", "0.5", "--sheet", str(sheet)], printed.append)
    text = "".join(printed)
    rows = ["truth", "R' x L'", "grain 0.15", "former, 4 steps", "1 steps, texture 1", "4 steps, texture 1"]
    rows += ["4 steps, texture 0.25", "4 steps, texture 0.5"]
    for name in rows:
        assert text.count(f"| {name} |") == 2, name  # the pairs, and the photograph in eleven lights
    mean, full = (next(line for line in text.splitlines() if line.startswith(f"| {name} |")) for name in rows[1::4])
    assert mean.split("|")[3:] != full.split("|")[3:]
    assert "| 11 |" in text and sheet.stat().st_size > 0


def test_drawn_shows_the_spread_of_the_seeds(tmp_path, flow, pairs):
    table, faces, said = tmp_path / "map.png", tmp_path / "faces.jpg", []
    options = ["--weights", str(flow), "--every", "2", "--seeds", "2"]
    drawn.main([str(pairs), "--map", str(table), "--faces", str(faces), *options], said.append)
    assert len(said) == 2 and all(0 < float(line.split("spread ")[1].split(",")[0]) < 100 for line in said)
    with Image.open(table) as image:
        assert image.size == (3 * 192, 2 * 96)
        assert image.crop((2 * 192, 0, 3 * 192, 96)).getextrema()[0][1] > 0  # the map is not black
    with Image.open(faces) as image:  # input, R' x L', truth; two seeds and the map
        assert image.size == (3 * 3 * 176, 2 * (drawn.CAPTION + 3 * 176))


def test_drawn_shows_crops_of_some_pictures_and_of_the_worst(tmp_path, flow, pairs, monkeypatch):
    draw = drawn.Drawer(load_bundle(flow), load_segmenter(SHIPPED_SEGMENTER))
    settings = {"tables": [pairs], "grain": 0.15, "crops": tmp_path / "crops.jpg", "half": None, "every": 1}
    arguments, distances = SimpleNamespace(**settings, pictures=None), iter([0.1, 0.2, 0.9, 0.3])
    monkeypatch.setattr(drawn, "WORST", 1)
    with torch.inference_mode():
        darks = texture.pictures(arguments)
        (path,) = drawn.write_crops(darks, draw, arguments, lambda _a, _b: torch.tensor([next(distances)]))
    seen = read_image(path).pixels
    assert seen.shape == (3, 2 * (600 + drawn.CAPTION), len(drawn.TITLES) * 600)
    for row, number in enumerate((0, 2)):  # the first of five, and the worst
        high, top = read_image(pairs.parent / f"high{number}.png").pixels[None], row * 600 + (row + 1) * drawn.CAPTION
        truth = texture.enlarged(high, texture.busiest(high)[1])
        assert (seen[:, top : top + 600, -600:] - truth).abs().mean() < 0.03


def test_drawn_has_free_pictures_of_both_lights():
    darks = list(drawn.free_pictures())
    assert len(darks) == 8 and all(dark.low.shape == dark.high.shape == (1, 3, 200, 200) for dark in darks)
    assert len({dark.kind for dark in darks[::2]}) == len({dark.scene for dark in darks[::2]}) == 2
    assert all(0 < dark.low.mean() < 0.4 * dark.high.mean() for dark in darks)


def test_drawn_goes_on_in_another_file_when_one_is_full(tmp_path, monkeypatch):
    noise = torch.rand(40, 60, 3, generator=torch.Generator().manual_seed(0)).mul(255).byte().numpy()
    monkeypatch.setattr(drawn, "MOST_BYTES", 2 * len(drawn.jpegs([("a", noise)])[0]))
    paths = drawn.write_sheets([("a", noise)] * 5, tmp_path / "many.jpg")
    assert [path.name for path in paths[:2]] == ["many.jpg", "many-2.jpg"] and 2 < len(paths) <= 5
    assert all(path.stat().st_size <= drawn.MOST_BYTES for path in paths)
    assert sum(read_image(path).pixels.shape[1] for path in paths) == 5 * (40 + drawn.CAPTION)


def test_drawn_hides_which_side_is_which(tmp_path, flow, pairs, capsys):
    folder, key = tmp_path / "blind", tmp_path / "key.json"
    options = [str(pairs), "--weights", str(flow), "--blind", str(folder), "--count", "3"]
    drawn.main([*options, "--seed", "4", "--key", str(key)])
    told = json.loads(key.read_text(encoding="utf-8"))
    assert sorted(told) == sorted(path.name for path in folder.iterdir()) == ["01.png", "02.png", "03.png"]
    scenes = {entry["picture"].split(", ")[1] for entry in told.values()}
    assert scenes == {"scene 0", "scene 1"}  # each is there before one is there twice
    assert all({entry["left"], entry["right"]} == {"R' x L'", "texture 1"} for entry in told.values())
    with Image.open(folder / "02.png") as image:
        assert image.size == (2 * 600 + drawn.GAP, 600)
    again = tmp_path / "again.json"
    drawn.main([*options, "--seed", "4", "--key", str(again)])
    assert again.read_text(encoding="utf-8") == key.read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        drawn.main([*options, "--key", str(folder / "key.json")])
    assert "outside its folder" in capsys.readouterr().err
