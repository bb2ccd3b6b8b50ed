"""jores/METHOD.md is true: what cites it and what it names exist, and its formulas are those of the code."""

from __future__ import annotations

import ast
import re

import pytest
import torch
from torch import Tensor, nn

from jores.conditions import Given, RetinexCondition
from jores.config import PRESETS, DenoiserConfig
from jores.diffusion.sampling import ddim_sigma
from jores.diffusion.schedule import LEARNED_STEPS, NoiseSchedule
from jores.nets.decomposition import FLOOR, REACH
from jores.nets.denoiser import DETAIL, DenoisingUNet, fine_detail, without_mesh
from jores.nets.lifting import ROOM
from jores.nets.refinement import RefinementNet
from jores.training.recipe import load_recipe
from tests.names import ROOT, defined_in

PAGE = (ROOT / "jores" / "METHOD.md").read_text("utf-8")
STATUSES = ("*paper*", "*ancestor*", "*inferred*", "*ours*")
FROM_WHERE = ("adjustment", "refinement", "denoiser", "lifting", "decomposition", "attention", "exposure_head",
              "gain_grid", "segmentation")  # fmt: skip
CITED = re.compile(r"METHOD\.md, (\d+(?:(?:, | and | to )\d+)*)")
TEXTS = [
    path
    for folder in ("jores", "nodes", "tests", "workflows", "locales")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md", ".js", ".json", ".yaml")
] + sorted(ROOT.glob("*.md"))


def sections() -> dict[int, str]:
    """The text of each numbered formula, by its number."""
    parts = re.split(r"^\*\*(\d+)\. ", PAGE.split("\n## Where ")[0], flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_nineteen_formulas_each_with_its_status_and_its_place() -> None:
    assert list(sections()) == list(range(1, 20))
    for number, text in sections().items():
        said, formula, *_ = text.split("```")
        assert any(status in said for status in STATUSES) and ".py`: `" in said and formula.strip(), number
    assert "was not at hand" in PAGE.split("\n\n")[1]


def test_what_is_cited_is_on_the_page() -> None:
    cited = {(path, int(n)) for path in TEXTS for found in CITED.findall(path.read_text("utf-8"))
             for n in re.findall(r"\d+", found)}  # fmt: skip
    assert {number for _, number in cited} <= sections().keys()
    assert len({path for path, _ in cited if path.suffix == ".py"}) > 15


def test_no_equation_is_cited_as_if_it_were_the_papers() -> None:
    found = [f"{path.relative_to(ROOT)}: {hit}" for path in TEXTS for hit in
             re.findall(r"\bEqs?[.] ?\d*|\b[Ee]quations? ?\(?\d+", path.read_text("utf-8"))]  # fmt: skip
    assert not found


def test_what_the_page_names_is_in_the_code() -> None:
    pointers = re.findall(r"`([\w/]+\.\w+)`:((?:,?\s+`[\w.]+`)+)", PAGE)
    assert len(pointers) > 25 and {p for p, _ in pointers} >= set(re.findall(r"`(jores/[\w/]+\.py)`", PAGE))
    missing = [f"{path}: {name}" for path, names in pointers for name in re.findall(r"`([\w.]+)`", names)
               if name not in defined_in(ROOT / path)]  # fmt: skip
    assert not missing


def test_the_largest_deviation_is_named_where_people_read() -> None:
    readme, card = ((ROOT / name).read_text("utf-8") for name in ("README.md", "jores/weights/MODEL_CARD.md"))
    about = readme[readme.index("## What this is") :].split("\n## ")[0]
    assert "(jores/METHOD.md)" in about and "(../METHOD.md)" in card
    works = readme[readme.index("## How it works") :].split("\n## ")[0]
    for text in (works, card.split("\n## ")[0], DenoisingUNet.__doc__ or "", PAGE.split("\n## ")[-1]):
        words = " ".join(text.split()).lower()
        assert "largest" in words and "diffuses the whole picture" in words and "light and broad colour never" in words


@pytest.mark.parametrize("name", FROM_WHERE)
def test_a_net_says_what_is_from_where(name: str) -> None:
    text = ast.get_docstring(ast.parse((ROOT / "jores" / "nets" / f"{name}.py").read_text("utf-8")))
    last = text.split("\n\n")[-1]
    assert re.search(r"From the paper: .+ Inferred: .+ Ours: ", last.replace("\n", " "))


def test_the_pages_numbers_are_those_of_the_presets_and_recipes() -> None:
    flow, compact, paper = PRESETS["texture"], PRESETS["compact"], PRESETS["paper"]
    losses = [load_recipe(ROOT / f"jores/training/recipes/{name}.yaml") for name in ("texture", "paper", "compact")]
    for recipe in losses:
        a, b = recipe["decompose"]["options"], recipe["adjust"]["options"]
        assert f"{a['reflectance']} |R_l - R_h| + {a['cross']} (" in PAGE and f"+ {a['smooth']} (S(" in PAGE
        assert b["product"] == 1 and not b["edges"] and f"+ {b['maps']} (|R' - R_h|" in PAGE
        assert f"+ {b['smooth']} S(L', R_h)" in PAGE
        assert f"= {b['psnr']} log((x - y)^2 + 1e-4) + {b['structure']} (1 - SSIM(x, y))" in PAGE
    own, plain = losses[2]["diffuse"]["options"], losses[1]["diffuse"]["options"]
    assert own["own"] == 1 and own["unet_structure"] == own["structure"] == 0.3 and own["psnr"] == plain["psnr"] == 0.04
    assert plain["own"] == plain["structure"] == plain["unet_structure"] == 0
    assert f"c = {flow.denoiser.detail_std}" in PAGE and f"over {REACH} pixels" in PAGE and FLOOR == 1 / 512
    assert f"about {DETAIL} pixels" in PAGE and LEARNED_STEPS == 8 and ROOM == 2
    assert f"tau = {compact.denoiser.picture_std},  kappa = {compact.denoiser.residual_scale}" in PAGE
    assert not paper.denoiser.picture_std and not paper.denoiser.detail_std and paper.schedule.prediction == "eps"
    assert flow.denoiser.retinex_levels == (1, 2) and flow.denoiser.semantic_levels == (2,)
    assert flow.denoiser.fold == 2 and not flow.denoiser.attention_upwards
    assert [preset.refinement.fold for preset in (flow, compact, paper)] == [4, 4, 2]


def test_2_the_noise() -> None:
    table = NoiseSchedule(PRESETS["texture"].schedule).alphas_cumprod
    t = 1 - torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert torch.allclose((table / (1 - table)).sqrt(), t / (0.12 * (1 - t))) and table[-1] == 0
    assert NoiseSchedule(PRESETS["compact"].schedule).alphas_cumprod[-1] == 0
    assert 0 < NoiseSchedule(PRESETS["paper"].schedule).alphas_cumprod[-1] < 1e-4


def parts(seed: int = 3) -> tuple[Tensor, Given, Tensor]:
    """x_t, the picture and maps, and p = 2 R' * L' - 1; with features for the default widths."""
    torch.manual_seed(seed)
    low, r, light = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32)
    features = tuple(torch.rand(1, w, 32 // n, 32 // n) for w, n in zip((96, 160, 256), (4, 8, 16), strict=True))
    condition = RetinexCondition(r, light, features, torch.tensor([0.4]))
    return torch.randn(1, 3, 32, 32), Given(low, condition), 2 * r * light - 1


def unet(config: DenoiserConfig) -> DenoisingUNet:
    net = DenoisingUNet(config)
    nn.init.normal_(net.head.weight, std=0.05)
    return net.eval()


@pytest.mark.parametrize("t", [249, 499, 749, 999])
@torch.no_grad()
def test_12_and_13_the_unet(t: int) -> None:
    x_t, given, p = parts()
    for name in ("texture", "compact"):
        config = PRESETS[name]
        net, schedule = unet(config.denoiser), NoiseSchedule(config.schedule)
        a = schedule.alpha_bar(t) ** 0.5
        s, level = (1 - a * a) ** 0.5, torch.tensor([a])
        x0, eps = schedule.x0_and_eps(x_t, net(x_t, level, given), a * a)
        if c := config.denoiser.detail_std:
            y_t, when = (x_t - a * p) / (a * c + s), a * c / (a * c + s)
            f = net.raw_output(y_t, torch.tensor([when]), given)
            wanted = p + c * without_mesh(fine_detail(y_t + (1 - when) * f))
        else:
            f, tau, kappa = net.raw_output(x_t, level, given), net.config.picture_std, net.config.residual_scale
            d = (a * tau) ** 2 + s * s
            wanted = p + a * tau**2 / d * (x_t - a * p) + kappa * s / d**0.5 * f
        assert torch.allclose(x0, wanted, atol=2e-3), name
        assert torch.allclose(a * x0 + s * eps, x_t, atol=2e-3), name


@torch.no_grad()
def test_16_rnet_adds_what_ircm_gives() -> None:
    x0, given, _ = parts()
    net = RefinementNet(PRESETS["texture"].refinement).eval()
    assert torch.equal(net(x0, torch.ones(1), given.condition), x0.clamp(-1, 1)), "D begins at zero"
    nn.init.constant_(net.ircm.head.bias, 0.25)
    assert torch.allclose(net(x0, torch.ones(1), given.condition), (x0 + 0.25).clamp(-1, 1))


def test_18_the_noise_of_a_step() -> None:
    a, after = 0.3, 0.8
    s, s_next = (1 - a * a) ** 0.5, (1 - after * after) ** 0.5
    wanted = 0.7 * s_next / s * (1 - a * a / after**2) ** 0.5
    assert ddim_sigma(a * a, after**2, 0.7) == pytest.approx(wanted)
    assert NoiseSchedule(PRESETS["texture"].schedule).timesteps(4) == [999, 749, 499, 249]
