"""The shipped workflows and the nodes over ComfyUI's own interface: a real server with the shipped weights."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from host.client import Client, PromptError, with_own
from host.refresh_workflows import WORKFLOWS, run_on

pytestmark = pytest.mark.slow

NAMES = ("enhance_low_light", "jores_five_stages")


def api(name: str) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text("utf-8"))


def small(name: str, folder: Path, mode: str = "RGB", file: str = "small.png") -> Path:
    """The workflow's dark picture at 96 pixels, so that a run takes a second."""
    with Image.open(WORKFLOWS / f"{name}.input.png") as picture:
        picture = picture.convert(mode)
        picture.thumbnail((96, 96))
        picture.save(folder / file)
    return folder / file


def pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded))).astype(float) / 255


def test_one_seed_is_one_picture(comfy_client: Client, tmp_path: Path):
    """The same picture under two names: the host cannot answer the second run from its cache."""
    results = []
    for file, seed in (("a.png", 7), ("b.png", 7), ("c.png", 8)):
        prompt = api("enhance_low_light")
        prompt["2"]["inputs"] |= {"seed": seed, "steps": 2}
        results.append(comfy_client.pictures(run_on(comfy_client, prompt, small(NAMES[0], tmp_path, "L", file)))[0])
    first, second, third = map(pixels, results)
    assert np.array_equal(first, second) and not np.array_equal(first, third)


def test_a_result_that_the_host_still_has_is_shown_again(comfy_client: Client, tmp_path: Path):
    """Another graph on the same picture, as when a second template is opened: the chart must not be missing there."""
    source, charts = small("enhance_low_light", tmp_path, file="shown.png"), []
    for ending in ("JoReS/first", "JoReS/second"):
        prompt, ran = api("enhance_low_light"), []
        prompt["2"]["inputs"]["steps"] = 1
        prompt["3"]["inputs"]["filename_prefix"] = ending
        with_own(prompt, comfy_client.upload(source))

        def note(kind: str, data: dict, ran: list[str] = ran) -> None:
            if kind == "executing":
                ran.append(data["node"])

        charts += comfy_client.pictures(comfy_client.run(prompt, 120, note), "2", "temp")
    assert "2" not in ran and "3" in ran
    assert len(charts) == 2 and charts[0] == charts[1]


def test_the_example_photograph_is_shown_in_every_run(comfy_client: Client):
    prompt = {
        "1": {"class_type": "JoReSLoadExample", "inputs": {"picture": "region"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    shown = []
    for node in ("2", "3"):  # another graph on the same picture
        prompt = {"1": prompt["1"], node: prompt[next(reversed(prompt))]}
        shown += comfy_client.pictures(comfy_client.run(prompt, 120), "1", "temp")
    assert len(shown) == 2 and shown[0] == shown[1]


@pytest.mark.parametrize("name", NAMES)
def test_cancel_in_mid_sampling_leaves_the_server_usable(comfy_client: Client, tmp_path: Path, name: str):
    sampler, steps = ("2", "9")[NAMES.index(name)], 100
    source, prompt, done = small(name, tmp_path, file="cancelled.png"), api(name), []
    prompt[sampler]["inputs"]["steps"] = steps

    def cancel_after_two_steps(kind: str, data: dict) -> None:
        """Newer hosts report ten times a second at most: the second report may be of any step."""
        if kind == "progress" and data["node"] == sampler:
            done.append(data["value"])
            if len(done) == 2:
                threading.Thread(target=comfy_client.interrupt).start()

    with_own(prompt, comfy_client.upload(source))
    with pytest.raises(PromptError, match="interrupted in"):
        comfy_client.run(prompt, 120, cancel_after_two_steps)
    assert done and max(done) < steps
    prompt[sampler]["inputs"]["steps"] = 1
    assert comfy_client.pictures(comfy_client.run(prompt, 120))


def test_mistakes_are_named_and_leave_the_server_usable(comfy_client: Client, tmp_path: Path):
    prompt = api("jores_five_stages")
    with_own(prompt, comfy_client.upload(small("jores_five_stages", tmp_path)))
    prompt["9"]["inputs"]["steps"] = 1

    def run_with(extra: dict, node: str, **inputs: object) -> None:
        changed = json.loads(json.dumps(prompt)) | extra
        changed[node]["inputs"] |= inputs
        comfy_client.run(changed, 120)

    empty = {"20": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}}
    black = {"20": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 8, "batch_size": 1, "color": 0}}}
    with pytest.raises(PromptError, match="Sample JoReS Diffusion: latent is .1, 4, 8, 8"):
        run_with(empty, "9", latent=["20", 0])
    with pytest.raises(PromptError, match="Finish Enhancement: latent holds 1 picture"):
        run_with(black, "10", image=["20", 0])
    # A graph of one output: where only some outputs are wrong, the host runs the others and says nothing.
    for name, value, answer in (
        ("steps", 1000, "Value 1000 bigger than max"),
        ("model_name", "../../secret.safetensors", "not in list|there is no file '../../secret.safetensors' in models"),
    ):
        wrong = api("enhance_low_light") | {"1": prompt["1"]}
        wrong["2"]["inputs"][name] = value
        with pytest.raises(PromptError, match=answer):
            comfy_client.run(wrong, 120)
    run_with({}, "9", steps=1)


def test_a_stock_sampler_takes_the_model(comfy_client: Client, tmp_path: Path):
    prompt = api("jores_five_stages")
    inputs = {"model": ["8", 0], "positive": ["7", 0], "negative": ["7", 1], "latent_image": ["7", 2], "seed": 0}
    inputs |= {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    prompt["9"] = {"class_type": "KSampler", "inputs": inputs}
    prompt["10"] = {"class_type": "VAEDecode", "inputs": {"samples": ["9", 0], "vae": ["2", 2]}}
    entry = run_on(comfy_client, prompt, small("jores_five_stages", tmp_path))
    stock = pixels(comfy_client.pictures(entry)[0])
    ours = pixels(comfy_client.pictures(run_on(comfy_client, api("jores_five_stages"), small(NAMES[1], tmp_path)))[0])
    assert stock.mean() > 0.25 and abs(stock - ours).mean() < 0.05
