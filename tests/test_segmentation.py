from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from skimage import data
from torch.nn import functional as F
from transformers import SegformerForImageClassification, SegformerForSemanticSegmentation

from jores import pipeline, retinex
from jores.checkpoint import FORMER_SEGMENTER, SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.conditions import Keeper
from jores.imaging.exposure import brighten, mean_luma
from jores.nets.deeplab import DeepLabPlus, _at_centres
from jores.nets.segmentation import IMAGENET_MEAN, IMAGENET_STD, SegmenterError, prepare
from jores.options import SampleOptions
from jores.pipeline import adjust, decompose, enhance, lit_for_segmenter, segment
from jores.semantics import EVERYDAY, class_mask, everyday_names, find_classes, load_segmenter
from jores.training.pretrained import main as convert
from tests.segformers import write_model
from tests.tiny import NAMES

ROOT = Path(__file__).resolve().parents[1]


TO_BREAK = [
    (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    (lambda f: (f / "model.safetensors").write_bytes(b"not a model at all"), "cannot be loaded"),
    (lambda f: (f / "config.json").write_text("{"), "cannot be loaded"),
    (lambda f: (f / "config.json").unlink(), "no config.json"),
    (lambda f: (f / "config.json").write_text('{"hidden_size": 1' + "0" * 400 + "}"), "cannot be loaded"),
    (lambda f: (f / "preprocessor_config.json").write_bytes(b"\xff"), "not valid JSON"),
]
SETTINGS = ("]", "[]", "0.5", "null", *(
    f'{{"{name}": {value}}}' for name in ("image_mean", "image_std")
    for value in ("null", "0.5", "[0.5]", "[1, 1, 1, 1]", '["a", "b", "c"]', "[1, 1, NaN]", "[1, 1, Infinity]",
                  "[1, 1, 1e300]", "[[1], 1, 1]", "[1, null, 1]", '"rgb"', "{}", "1" + "0" * 400)
), *(f'{{"image_std": {value}}}' for value in ("[0, 0, 0]", "[1, 1, 0]", "[1, -1, 1]", "[1, 1, 1e-50]")))  # fmt: skip


@pytest.fixture(scope="module")
def shipped():
    if not (SHIPPED_SEGMENTER / "model.safetensors").is_file():
        pytest.skip("the shipped segmenter is not there yet")
    return load_segmenter(SHIPPED_SEGMENTER)


@pytest.fixture(scope="module")
def shipped_nets():
    return load_bundle(SHIPPED_WEIGHTS)


@pytest.fixture(scope="module")
def former():
    return load_segmenter(FORMER_SEGMENTER)


@pytest.mark.parametrize("names", [NAMES, ("others", *NAMES)], ids=["150", "151"])
def test_models_with_and_without_others_give_the_same_kind_of_map(tmp_path, names):
    segmenter = load_segmenter(write_model(tmp_path, names))
    picture = torch.rand(2, 3, 60, 90, generator=torch.Generator().manual_seed(1)) * 0.2
    prior = segmenter(picture)
    logits = segmenter.model(prepare(picture, (352, 512))).logits
    assert prior.labels == NAMES and prior.size == (60, 90)
    assert prior.probabilities.shape == (2, 150, 88, 128)
    torch.testing.assert_close(prior.probabilities, logits.softmax(1)[:, -150:])


def test_the_folder_tells_how_its_input_is_normalised(tmp_path):
    write_model(tmp_path, NAMES)
    assert load_segmenter(tmp_path).mean == IMAGENET_MEAN
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}')
    segmenter = load_segmenter(tmp_path)
    assert segmenter.mean == (0.5, 0.5, 0.5) and segmenter.std == (1, 1, 1)


def test_the_model_sees_a_brightened_picture():
    dark = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.1
    expected = brighten(dark) - torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    seen = prepare(dark, (64, 64)) * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("damage, reason", TO_BREAK)
def test_a_damaged_folder_is_named(tmp_path, damage, reason):
    damage(write_model(tmp_path / "my model", NAMES))
    with pytest.raises(SegmenterError, match="my model.*" + reason):
        load_segmenter(tmp_path / "my model")


@pytest.mark.parametrize("text", SETTINGS)
def test_damaged_settings_of_the_input_are_named(folder, text):
    (folder / "preprocessor_config.json").write_text(text)
    with pytest.raises(SegmenterError, match=r"preprocessor_config.json: not valid JSON"):
        load_segmenter(folder)


@pytest.mark.parametrize("size", ("null", "Infinity", "NaN", "-1", "true", "[]", '{"height": 1e300}', "1" + "0" * 400))
def test_every_size_of_the_input_gives_one_that_can_be_worked_at(folder, size):
    (folder / "preprocessor_config.json").write_text(f'{{"size": {size}}}')
    assert 128 <= load_segmenter(folder).resolution <= 640


@pytest.mark.parametrize("file", ("config.json", "preprocessor_config.json"))
@pytest.mark.parametrize("start, end", (("[", "]"), ('{"size": ', "}")))
def test_settings_nested_to_any_depth_are_named(folder, file, start, end):
    """Where the reader gives up, and where one of the functions behind it does."""
    for depth in (100, *range(400, 1000, 50), 10**5):
        (folder / file).write_text(start * depth + "0" + end * depth)
        with contextlib.suppress(SegmenterError):
            load_segmenter(folder)


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped segmenter."""
    return shutil.copytree(SHIPPED_SEGMENTER, tmp_path / "mine")


@pytest.mark.parametrize(
    "names, kind, reason",
    [
        (("road", "sidewalk", "building"), SegformerForSemanticSegmentation, "3 classes .road, sidewalk"),
        (tuple(f"LABEL_{i}" for i in range(150)), SegformerForSemanticSegmentation, "not ADE20K's"),
        (NAMES, SegformerForImageClassification, "not a complete segmentation model"),
    ],
)
def test_other_kinds_of_models_are_refused(tmp_path, names, kind, reason):
    write_model(tmp_path / "other", names, kind)
    with pytest.raises(SegmenterError, match="other.*" + reason):
        load_segmenter(tmp_path / "other")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (700, 33)])
def test_every_size_and_precision_gives_probabilities(tmp_path, size, dtype):
    segmenter = load_segmenter(write_model(tmp_path, ("others", *NAMES)), dtype=dtype)
    prior = segmenter(torch.rand(1, 3, *size).to(dtype))
    total = prior.probabilities.sum(1)
    assert prior.size == size and prior.probabilities.dtype == torch.float32
    assert total.max() <= 1 + 1e-4 and total.min() > 0


def photograph() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255


def test_former_map_stays_when_the_light_goes(former):
    """A short exposure, once stored in 8 bits as a camera would: the map is nearly the same, and no uniform guess."""
    photo = photograph()
    dark = former((photo * 0.2 * 255).round() / 255).probabilities
    darker = former((photo * 0.05 * 255).round() / 255).probabilities
    assert (dark - darker).abs().sum(1).mean() < 0.25  # of at most 2
    assert (dark.argmax(1) == darker.argmax(1)).float().mean() > 0.85
    entropy = -(dark * dark.clamp_min(1e-9).log()).sum(1).mean()
    assert entropy < 0.8 * math.log(150)


def test_shipped_map_is_deterministic_and_says_what_is_where(shipped):
    photo = photograph() * 0.2
    first, second = shipped(photo), shipped(photo)
    assert torch.equal(first.probabilities, second.probabilities)
    assert first.probabilities.sum(1).max() <= 1 + 1e-5
    assert first.labels[:3] == ("wall", "building", "sky") and "person" in first.labels
    mirrored = shipped(photo.flip(3)).probabilities.flip(3)
    same = F.cosine_similarity(first.probabilities, mirrored).mean()
    elsewhere = F.cosine_similarity(first.probabilities, first.probabilities.flip(2)).mean()
    assert same > elsewhere  # the map follows the picture, not the place in the frame


AUTO_MAP = {"AutoConfig": "evil.EvilConfig", "AutoModelForSemanticSegmentation": "evil.Evil"}


def _foreign(kind: str) -> dict:
    """A config that asks for code of its folder's own, or from a hub."""
    config = json.loads((SHIPPED_SEGMENTER / "config.json").read_text("utf-8"))
    if kind == "kernel":
        return config | {"attn_implementation": "someone/kernel"}
    if kind == "a known model":
        return config | {"auto_map": AUTO_MAP}
    if kind == "an unknown model":
        return config | {"auto_map": AUTO_MAP, "model_type": "evil"}
    backbone = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoBackbone": "evil.Evil"}}
    return {"model_type": "upernet", "backbone_config": backbone, "auto_map": AUTO_MAP}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["an unknown model", "a known model", "a backbone", "kernel"])
def test_a_folders_own_code_is_never_run(tmp_path, kind):
    """Not even where somebody sits at the terminal and says yes."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_foreign(kind)), "utf-8")
    shutil.copy(SHIPPED_SEGMENTER / "model.safetensors", folder)
    ran = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass EvilConfig: pass\nclass Evil: pass\n"
    (folder / "evil.py").write_text(code)
    program = (
        "import sys; from jores.nets.segmentation import SegmenterError; from jores.semantics import load_segmenter\n"
        "try:\n    load_segmenter(sys.argv[1])\nexcept SegmenterError as error:\n    sys.exit(str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=ROOT, input="y\ny\ny\n", capture_output=True, text=True,
        check=False, env={**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert not ran.exists() and "[y/N]" not in done.stdout
    assert str(folder) in done.stderr if kind != "a known model" else done.returncode == 0, done.stderr


def test_the_former_segmenter_still_loads_at_the_size_it_was_trained_at():
    assert load_segmenter(FORMER_SEGMENTER).resolution == 320 and load_segmenter(SHIPPED_SEGMENTER).resolution == 416


def test_the_shipped_folder_says_whose_it_is():
    notice = (SHIPPED_SEGMENTER / "NOTICE").read_text("utf-8")
    licence = (SHIPPED_SEGMENTER / "LICENSE").read_text("utf-8")
    assert "Google" in notice and "Changes made" in notice and "Apache License" in licence


def test_no_dial_changes_what_the_segmenter_sees(shipped, shipped_nets):
    dark = F.interpolate(photograph(), size=(96, 128), mode="area") * 0.1
    prior = segment(shipped, dark, shipped_nets)
    seen = []

    class Watching(Keeper):
        def __call__(self, what, make):
            made = make()
            seen.extend([made] if what[0] == "prior" else [])
            return made

    for options in (SampleOptions(1, exposure=0.2), SampleOptions(1, exposure=0.7, brightness=1.0)):
        enhance(dark, shipped_nets, shipped, options, keeper=Watching())
    assert len(seen) == 2
    assert all(torch.equal(made.probabilities, prior.probabilities) for made in seen)
    lit = lit_for_segmenter(shipped_nets, dark, shipped.resolution)
    assert prior.size == (96, 128) and 0.3 < mean_luma(lit).item() < 0.55


def test_a_small_picture_is_lit_once_for_the_result_and_for_the_segmenter(shipped, shipped_nets, monkeypatch):
    dark, calls = photograph()[..., ::5, ::4] * 0.1, []

    def counting(*given, **options):
        calls.append(options.get("exposure"))
        return adjust(*given, **options)

    for module in (pipeline, retinex):  # for the result, and for the segmenter
        monkeypatch.setattr(module, "adjust", counting)
    enhance(dark, shipped_nets, shipped, SampleOptions(1))
    assert calls == [None]
    enhance(dark, shipped_nets, shipped, SampleOptions(1, exposure=0.3))  # lit as told, and as ANet would
    assert calls == [None, 0.3, None]
    seen, split = [], shipped_nets.dnet.register_forward_hook(lambda *_: seen.append(1))
    enhance(dark, shipped_nets, shipped, SampleOptions(1, exposure=0.3))
    split.remove()
    assert len(seen) == 1  # R and L do not depend on the exposure
    maps = decompose(shipped_nets, dark)
    alone = lit_for_segmenter(shipped_nets, dark, shipped.resolution)
    for given in ({"maps": maps}, {"known": adjust(shipped_nets, maps)}):
        assert torch.equal(lit_for_segmenter(shipped_nets, dark, shipped.resolution, **given), alone)


def test_a_person_is_seen_in_the_dark(shipped, shipped_nets):
    """The astronaut fills the middle of the picture; noise of a short exposure, 8 bits."""
    generator = torch.Generator().manual_seed(0)
    dark = photograph() * 0.08 + 0.006 * torch.randn(1, 3, 512, 512, generator=generator)
    prior = segment(shipped, (dark.clamp(0, 1) * 255).round() / 255, shipped_nets)
    person = prior.probabilities[:, prior.labels.index("person")]
    assert person[:, 30:100, 40:90].mean() > 0.3 > 3 * person[:, :30, :15].mean()


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (700, 33), (1100, 900)])
def test_every_size_is_lit(shipped, shipped_nets, size):
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 0.1
    prior = segment(shipped, picture, shipped_nets)
    lit = lit_for_segmenter(shipped_nets, picture, shipped.resolution)
    assert prior.size == size and max(lit.shape[-2:]) <= 512
    mask = class_mask(prior, [0, 2])
    assert mask.shape == (1, 1, *size) and mask.min() >= 0 and mask.max() <= 1


def test_everyday_names_stand_for_several_classes(shipped):
    names = shipped.labels
    found = [names[i] for i in find_classes("plants, water (all)", names)]
    assert {"tree", "grass", "plant", "water", "sea", "river", "lake"} <= set(found)
    assert [names[i] for i in find_classes("water", names)] == ["water"]  # the class alone, as ever
    for name in everyday_names():
        assert find_classes(name, names), name
    words = {word for group in EVERYDAY.values() for word in group.split(", ")}
    assert words <= set(names)


def test_the_net_reads_its_map_off_at_the_centres_of_the_cells():
    net = DeepLabPlus(3).eval()
    assert net(torch.rand(1, 3, 64, 96)).shape == (1, 3, 16, 24)
    nodes = torch.arange(0, 4 * 9, 4.0)  # the place of each node in pixels
    torch.testing.assert_close(_at_centres(nodes[None, None, None], 3)[0, 0, 0], torch.arange(8) * 4 + 1.5)


def test_converting_refuses_other_weights_and_a_folder_that_is_there(tmp_path, capsys):
    weights, labels = tmp_path / "w.safetensors", tmp_path / "labels.txt"
    save_file({"a": torch.zeros(1)}, weights)
    labels.write_text("\n".join(f"{i} {name}" for i, name in enumerate(("others", *NAMES))), "utf-8")
    with pytest.raises(SystemExit):
        convert([str(weights), str(labels), str(tmp_path / "made")])
    assert "w.safetensors" in capsys.readouterr().err and not (tmp_path / "made").exists()
    net = DeepLabPlus(151)
    save_file(net.state_dict(), weights)
    convert([str(weights), str(labels), str(tmp_path / "made")])
    assert load_segmenter(tmp_path / "made").labels == NAMES
    with pytest.raises(SystemExit):
        convert([str(weights), str(labels), str(tmp_path / "made")])
    assert "exists already" in capsys.readouterr().err
