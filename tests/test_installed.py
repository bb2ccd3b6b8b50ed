"""A release as its user meets it: the Registry's archive in a clean ComfyUI, driven over HTTP and the websocket.

This server is a second one beside `comfy_server`: it has previews on, and a folder of models from elsewhere.
"""

from __future__ import annotations

import io
import json
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from host.archive import write_archive
from host.client import Client, PromptError
from host.refresh_workflows import WORKFLOWS
from host.server import PACK, Server, start_server

pytestmark = pytest.mark.slow

FRAMES = 3
WEIGHTS = "jores/weights/jores-compact.safetensors"


@pytest.fixture(scope="module")
def installed(comfy_tree: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig) -> Iterator[Server]:
    """The archive, unzipped, under another folder name; models/jores of another place by extra_model_paths.yaml."""
    folder = tmp_path_factory.mktemp("release")
    with zipfile.ZipFile(write_archive(PACK, folder / "node.zip")) as archive:
        archive.extractall(folder / "unpacked")
    elsewhere = folder / "models elsewhere"
    for file in ("bundles/mine.safetensors", "bundles/old.pt", "segmenters/own/model.safetensors"):
        (elsewhere / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACK / WEIGHTS, elsewhere / file)
    (elsewhere / "segmenters/own/config.json").write_text("{}")
    places = f"mine:\n  base_path: {json.dumps(str(elsewhere))}\n  jores: bundles\n  jores_segmenters: segmenters\n"
    (folder / "extra.yaml").write_text(places)
    with start_server(
        folder / "base",
        tree=comfy_tree,
        pack=folder / "unpacked",
        cpu=not pytestconfig.getoption("gpu"),
        arguments=["--preview-method", "latent2rgb", "--extra-model-paths-config", str(folder / "extra.yaml")],
    ) as server:
        yield server


@pytest.fixture
def client(installed: Server) -> Iterator[Client]:
    with installed.connect() as connected:
        yield connected


@pytest.fixture
def pictures(client: Client, tmp_path: Path) -> Callable[[int], list[str]]:
    """Uploads new dark pictures, so that no run is answered from the host's cache; returns their names."""

    def upload(side: int) -> list[str]:
        names = []
        for i in range(FRAMES):
            noise = np.random.default_rng().integers(0, 40, (side, side, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / f"{side}-{i}-{noise.sum()}.png")
            names.append(client.upload(tmp_path / f"{side}-{i}-{noise.sum()}.png"))
        return names

    return upload


def batch(names: list[str]) -> dict:
    """Load Image nodes joined to one batch, whose output is ("batch", 0)."""
    nodes = {f"load{i}": {"class_type": "LoadImage", "inputs": {"image": name}} for i, name in enumerate(names)}
    last = "load0"
    for i in range(1, len(names)):
        key = "batch" if i == len(names) - 1 else f"join{i}"
        nodes[key] = {"class_type": "ImageBatch", "inputs": {"image1": [last, 0], "image2": [f"load{i}", 0]}}
        last = key
    return nodes


def stages(names: list[str], steps: int) -> dict:
    """The five stages of the shipped workflow, on a batch."""
    prompt = json.loads((WORKFLOWS / "api" / "jores_five_stages.json").read_text("utf-8"))
    only(prompt, "JoReSSample")["inputs"]["steps"] = steps
    return on_batch(prompt, names)


def enhance(names: list[str], steps: int, **inputs) -> dict:
    prompt = json.loads((WORKFLOWS / "api" / "enhance_low_light.json").read_text("utf-8"))
    node = only(prompt, "JoReSEnhance")
    node["inputs"] |= {"steps": steps, **inputs}
    return on_batch(prompt, names)


def on_batch(prompt: dict, names: list[str]) -> dict:
    """The graph with a batch of the user's pictures in place of its example, which is node 1."""
    prompt |= batch(names)
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if value == ["1", 0]:
                node["inputs"][name] = ["batch", 0]
    return {key: node for key, node in prompt.items() if key != "1"}


def only(prompt: dict, class_type: str) -> dict:
    (node,) = (node for node in prompt.values() if node["class_type"] == class_type)
    return node


def key_of(prompt: dict, class_type: str) -> str:
    return next(key for key, node in prompt.items() if node["class_type"] == class_type)


def pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))


class Events:
    """What the websocket told of each node: its progress values, and how many previews came while it ran."""

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[int, int]]] = {}
        self.previews: dict[str, int] = {}
        self.running = ""

    def __call__(self, kind: str, data: dict) -> None:
        if kind == "executing":
            self.running = data["node"]
        elif kind == "progress":
            self.values.setdefault(data["node"], []).append((int(data["value"]), int(data["max"])))
        elif kind == "preview":
            self.previews[self.running] = self.previews.get(self.running, 0) + 1


def test_the_release_offers_every_node_with_its_texts(client: Client):
    info = client.object_info()
    wanted = json.loads((Path(__file__).parent / "schema.json").read_text("utf-8"))
    assert {name for name in info if name.startswith("JoReS")} == set(wanted)
    for node_id, entry in wanted.items():
        given = info[node_id]
        assert given["display_name"] == entry["name"]
        assert given["output_name"] == [output["name"] for output in entry["outputs"]]
        slots = {name: spec for kind in ("required", "optional") for name, spec in given["input"].get(kind, {}).items()}
        assert set(slots) == {slot["id"] for slot in entry["inputs"]}, node_id
        assert all(spec[1]["tooltip"] for spec in slots.values()), node_id
        assert len(given["output_tooltips"]) == len(entry["outputs"]) and all(given["output_tooltips"]), node_id


def test_models_from_elsewhere_are_offered_and_load(client: Client, pictures):
    info = client.object_info()
    for node_id in ("JoReSLoadModel", "JoReSEnhance"):
        spec = info[node_id]["input"]["required"]["model_name"]
        menu = spec[1]["options"] if spec[0] == "COMBO" else spec[0]
        assert menu == ["jores-compact.safetensors (shipped)", "mine.safetensors"]
    spec = info["JoReSLoadSegmenter"]["input"]["required"]["segmenter_name"]
    assert "own" in (spec[1]["options"] if spec[0] == "COMBO" else spec[0])
    names = pictures(32)
    prompts = [enhance(names, 1, model_name=name) for name in ("mine.safetensors", menu[0])]
    mine, shipped = ([pixels(p) for p in client.pictures(client.run(prompt))] for prompt in prompts)
    assert len(mine) == FRAMES and all(map(np.array_equal, mine, shipped))


def test_progress_and_previews_of_every_step(client: Client, pictures):
    """Newer hosts leave out events that follow each other too fast: only the end of the smaller nodes is certain."""
    steps, events = 4, Events()
    prompt = stages(pictures(96), steps)
    client.run(prompt, 120, events)
    sampler = key_of(prompt, "JoReSSample")
    for class_type in ("JoReSDecompose", "JoReSAdjust", "JoReSSegment", "JoReSFinish"):
        values = events.values[key_of(prompt, class_type)]
        assert values[-1] == (FRAMES, FRAMES) and values == sorted(values), class_type
    prompt_of_one = enhance(pictures(96), steps)
    client.run(prompt_of_one, 120, events)
    for key in (sampler, key_of(prompt_of_one, "JoReSEnhance")):
        values = events.values[key]
        assert values[-1] == (FRAMES * steps, FRAMES * steps) and values == sorted(values), key
        assert len({value for value, _max in values}) >= FRAMES * steps - 1, values
        assert events.previews[key] >= FRAMES * steps - 1


def custom_sampling(prompt: dict, steps: int) -> dict:
    """The same graph with the stock custom sampler in place of ours."""
    key = key_of(prompt, "JoReSSample")
    ours = prompt[key]["inputs"]
    return prompt | {
        "noise": {"class_type": "RandomNoise", "inputs": {"noise_seed": ours["seed"]}},
        "guider": {"class_type": "BasicGuider", "inputs": {"model": ours["model"], "conditioning": ours["positive"]}},
        "sampler": {"class_type": "JoReSSampler", "inputs": {"eta": 0.0}},
        "sigmas": {"class_type": "JoReSSigmas", "inputs": {"model": ours["model"], "steps": steps}},
        key: {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {"noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["sampler", 0],
                       "sigmas": ["sigmas", 0], "latent_image": ours["latent"]},
        },
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["JoReSEnhance", "JoReSSample", "SamplerCustomAdvanced"])
def test_cancel_takes_effect_within_one_step(client: Client, pictures, kind: str):
    """Asked after two steps: the answer comes before the fourth is done, and the server goes on to the next graph."""
    side, steps = 320, 40
    make = {"JoReSEnhance": enhance, "JoReSSample": stages}.get(kind, lambda n, s: custom_sampling(stages(n, s), s))
    prompt, events, asked = make(pictures(side), steps), Events(), []
    key = key_of(prompt, kind)

    def cancel(event: str, data: dict) -> None:
        events(event, data)
        if len(events.values.get(key, ())) == 2 and not asked:
            client.interrupt()  # returns when the host knows
            asked.append(True)

    with pytest.raises(PromptError, match=f"interrupted in {kind}"):
        client.run(prompt, 120, cancel)
    assert events.values[key][-1][0] <= events.values[key][1][0] + 1, events.values[key]
    assert client.pictures(client.run(make(pictures(32), 1), 120))


@pytest.mark.parametrize("class_type", ["JoReSDecompose", "JoReSAdjust", "JoReSSegment"])
def test_batches_are_cancelled_between_pictures(client: Client, pictures, class_type: str):
    prompt, events, asked = stages(pictures(512), 1), Events(), []
    key = key_of(prompt, class_type)

    def cancel(event: str, data: dict) -> None:
        events(event, data)
        if events.running == key and not asked:
            asked.append(True)
            threading.Thread(target=client.interrupt).start()

    with pytest.raises(PromptError, match=f"interrupted in {class_type}"):
        client.run(prompt, 120, cancel)
    assert all(done < FRAMES for done, _max in events.values.get(key, [(0, FRAMES)]))
