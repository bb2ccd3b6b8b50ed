"""What graphs that people saved rely on: ids, inputs, their order and defaults; and what every node promises its user.

A test of the schemas' snapshot that fails shows what changed. If the change was meant, and breaks no saved graph (new
inputs come last and are optional), renew tests/schema.json:

    python3 dev.py test tests/test_contract.py --renew-schema
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from host.client import Client
from host.server import PACK

SNAPSHOT = Path(__file__).with_name("schema.json")
VERBS = {"Adjust", "Apply", "Compare", "Condition", "Decompose", "Enhance", "Finish", "Load", "Sample", "Schedule",
         "Segment", "Select"}  # fmt: skip
EVERYDAY = ("night", "dark", "underexposed", "backlit", "shadows", "relight", "denoise", "brighten", "noise",
            "low light photo")  # fmt: skip
STAGES = {"DNet": "Decompose Retinex", "ANet": "Adjust Retinex Condition", "before after": "Compare Before and After",
          "demo": "Load Example Photograph"}  # fmt: skip
IN_SIGHT = ["image", "exposure", "strength", "seed", "mask", "brightness", "quality"]
SHIPPED, SEGMENTER = "jores-compact.safetensors (shipped)", "segformer-dark (shipped)"
LIBRARY = {  # node -> the function of jores.pipeline whose defaults it shows
    "JoReSEnhance": "enhance", "JoReSAdjust": "adjust", "JoReSSample": "sample", "JoReSSampler": "sample",
    "JoReSSigmas": "sample", "JoReSFinish": "finish",
}  # fmt: skip


@pytest.fixture(scope="module")
def pack(jores_pack_nodes, comfy_inprocess):
    load = lambda name: importlib.import_module(f"jores_pack.{name}")  # noqa: E731
    return SimpleNamespace(nodes=jores_pack_nodes, base=comfy_inprocess.base, load=load)


def run(pack, node_id: str, **inputs) -> tuple:
    with torch.inference_mode():
        return pack.nodes[node_id].execute(**inputs).result


def described(slot) -> dict[str, Any]:
    """What a saved graph, or a prompt that a program makes, depends on. The lists of files are the user's own."""
    entry = {
        "id": slot.id,
        "type": slot.io_type,
        "name": slot.display_name,
        "optional": getattr(slot, "optional", None),
    }
    entry |= {key: getattr(slot, key, None) for key in ("default", "min", "max", "step", "control_after_generate")}
    options = getattr(slot, "options", None)
    if options is not None and not str(slot.default).endswith("(shipped)"):
        entry["options"] = len(options)
    return {key: value for key, value in entry.items() if value is not None}


def snapshot(nodes: dict) -> str:
    table = {}
    for node_id, node in nodes.items():
        schema = node.define_schema()
        table[node_id] = {
            "name": schema.display_name,
            "inputs": [described(slot) for slot in schema.inputs],
            "outputs": [described(slot) for slot in schema.outputs],
        }
    rows = [
        f' "{node}": {{\n  "name": {json.dumps(entry["name"])},\n'
        + ",\n".join(f'  "{kind}": [\n' + ",\n".join(f"   {json.dumps(slot)}" for slot in entry[kind]) + "\n  ]"
                     for kind in ("inputs", "outputs"))
        + "\n }"
        for node, entry in table.items()
    ]  # fmt: skip
    return "{\n" + ",\n".join(rows) + "\n}\n"  # a slot a line: differences are read by people


def test_schemas_are_those_that_saved_graphs_know(pack, pytestconfig):
    now = snapshot(pack.nodes)
    json.loads(now)
    if pytestconfig.getoption("renew_schema"):
        SNAPSHOT.write_text(now, "utf-8", newline="\n")
    before = SNAPSHOT.read_text("utf-8")
    changes = difflib.unified_diff(
        before.splitlines(), now.splitlines(), "tests/schema.json", "nodes", lineterm="", n=1
    )
    assert before == now, "\n".join(["see this file's head for how to renew the snapshot", *changes])


def test_schemas_and_execute_agree(pack):
    for node_id, node in pack.nodes.items():
        schema = node.define_schema()
        schema.validate()
        parameters = inspect.signature(node.execute).parameters
        ordered = sorted(schema.inputs, key=lambda slot: slot.optional)  # as Python has them: optional ones last
        assert [slot.id for slot in ordered] == list(parameters), node_id
        for slot in schema.inputs:
            given = parameters[slot.id].default
            wanted = getattr(slot, "default", None) if slot.optional else inspect.Parameter.empty
            assert given == wanted, f"{node_id}.{slot.id}: execute has {given}, the schema {wanted}"


def test_names_texts_and_places(pack):
    category = pack.load("nodes.schema").CATEGORY
    fields = {field.name for field in dataclasses.fields(next(iter(pack.nodes.values())).define_schema())}
    names = [node.define_schema().display_name for node in pack.nodes.values()]
    assert len(set(names)) == len(names) and {name.split()[0] for name in names} == VERBS
    for node_id, node in pack.nodes.items():
        schema = node.define_schema()
        assert node_id.isascii() and node_id.isidentifier() and node_id.startswith("JoReS")
        assert schema.category == category and len(schema.description) > 30, node_id
        if "search_aliases" in fields:  # newer hosts
            assert len(schema.search_aliases) >= 3, node_id
        assert not schema.is_deprecated and not schema.is_experimental, node_id
        for slot in (*schema.inputs, *schema.outputs):
            assert slot.id.isascii() and slot.id == slot.id.lower(), f"{node_id}.{slot.id}"
            assert slot.tooltip and slot.tooltip[0].isupper() or slot.tooltip[0].isdigit(), f"{node_id}.{slot.id}"
        assert all(output.display_name for output in schema.outputs), node_id


def test_aliases_lead_to_the_node(pack, monkeypatch):
    """`search_aliases` only exists on newer hosts; what the nodes would tell one is checked here on any."""
    schema, given = pack.load("nodes.schema"), []

    @dataclasses.dataclass
    class Newer(schema.io.Schema):
        search_aliases: list[str] = dataclasses.field(default_factory=list)

        def __post_init__(self):
            given.append(self)

    monkeypatch.setattr(schema.io, "Schema", Newer)
    monkeypatch.setattr(schema, "_SCHEMA_FIELDS", {field.name for field in dataclasses.fields(Newer)})
    for node in pack.nodes.values():
        node.define_schema()
    assert len(given) == len(pack.nodes)
    assert all(len(entry.search_aliases) >= 3 and "JoReS" in entry.search_aliases for entry in given)
    for words in EVERYDAY:
        found = [entry.display_name for entry in given if words in entry.search_aliases or words in entry.display_name]
        assert found[:1] == ["Enhance Low Light"], words
    for words, name in STAGES.items():
        (found,) = [entry.display_name for entry in given if words in entry.search_aliases]
        assert found == name, words


def test_searching_the_served_nodes_leads_to_the_one_block(comfy_client: Client):
    """As a search box orders hits: the whole name or alias, then its beginning, then a word of it, then any part."""
    info = {key: node for key, node in comfy_client.object_info().items() if key.startswith("JoReS")}
    if not any(node.get("search_aliases") for node in info.values()):
        pytest.skip("this host hands out no search aliases")

    def rank(node: dict[str, Any], query: str) -> int:
        texts = [text.lower() for text in (node["display_name"], *node["search_aliases"])]
        kinds = (
            lambda text: text == query, lambda text: text.startswith(query), lambda text: query in text.split(),
            lambda text: query in text,
        )  # fmt: skip
        return next((i for i, fits in enumerate(kinds) if any(map(fits, texts))), len(kinds))

    for query in (*EVERYDAY, *STAGES):
        ranks = {node["display_name"]: rank(node, query.lower()) for node in info.values()}
        assert min(ranks, key=ranks.__getitem__) == STAGES.get(query, "Enhance Low Light"), query


def test_the_one_block_shows_few_widgets(pack):
    """On hosts that fold away what is advanced."""
    schema = pack.load("nodes.schema")
    slots = pack.nodes["JoReSEnhance"].define_schema().inputs
    if schema.ADVANCED:
        assert [slot.id for slot in slots if not slot.advanced] == IN_SIGHT


@pytest.mark.parametrize("node_id", LIBRARY)
def test_defaults_are_the_librarys(pack, node_id):
    function = getattr(pack.load("jores.pipeline"), LIBRARY[node_id])
    library = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    for default in filter(dataclasses.is_dataclass, list(library.values())):
        library |= vars(default)
    compared = 0
    for slot in pack.nodes[node_id].define_schema().inputs:
        wanted = library.get(slot.id, inspect.Parameter.empty)
        if wanted is inspect.Parameter.empty or not hasattr(slot, "default"):
            continue
        shown = None if wanted is None and slot.default == 0 else slot.default  # 0 shows None: "automatic"
        assert shown == wanted, slot.id
        compared += 1
    assert compared


def tensors_of(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif dataclasses.is_dataclass(value):
        value = vars(value).values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for part in value for tensor in tensors_of(part)]


def test_no_node_changes_what_it_is_given(pack):
    """All nodes in a chain. Others may hold the same tensors: the host's cache, and further branches of the graph."""

    def checked(node_id: str, **inputs) -> tuple:
        before = {name: [t.clone() for t in tensors_of(value)] for name, value in inputs.items()}
        lists = {name: len(value) for name, value in inputs.items() if isinstance(value, list | dict)}
        options = {name: repr(value.model_options) for name, value in inputs.items() if hasattr(value, "model_options")}
        results = run(pack, node_id, **inputs)
        for name, value in inputs.items():
            assert all(map(torch.equal, before[name], tensors_of(value))), f"{node_id} changed {name}"
            assert lists.get(name) in (None, len(value) if name in lists else None), f"{node_id} changed {name}"
            assert options.get(name) in (None, repr(getattr(value, "model_options", None))), f"{node_id} changed {name}"
        seen.add(node_id)
        return results

    seen: set[str] = set()
    image = torch.rand(2, 33, 50, 4, generator=torch.Generator().manual_seed(0)) * 0.2
    mask = torch.rand(2, 33, 50)
    checked("JoReSLoadExample", picture="region")
    checked("JoReSLoadFolder", folder="examples (shipped)", first=1, count=1)
    checked("JoReSCompare", before=image, after=image, mode="split", position=0.5)
    model, nets, _vae = checked("JoReSLoadModel", model_name=SHIPPED)
    (segmenter,) = checked("JoReSLoadSegmenter", segmenter_name=SEGMENTER)
    retinex, *_ = checked("JoReSDecompose", nets=nets, image=image)
    condition, *_ = checked(
        "JoReSAdjust", nets=nets, retinex=retinex, exposure=0.4, denoise=0.5, illumination=mask[:1]
    )  # fmt: skip
    prior, *_ = checked("JoReSSegment", segmenter=segmenter, image=image, class_name="sky")
    positive, _negative, latent = checked("JoReSCondition", condition=condition, semantic=prior)
    (refined,) = checked(
        "JoReSApplyRefinement", model=model, nets=nets, condition=condition, start_percent=0.0, end_percent=1.0
    )
    (sampled,) = checked(
        "JoReSSample", model=refined, positive=positive, latent=latent, steps=2, seed=0, eta=0.5
    )  # fmt: skip
    checked("JoReSSampler", eta=0.5)
    checked("JoReSSigmas", model=refined, steps=2)
    checked("JoReSFinish", latent=sampled, image=image, strength=0.5, mask=mask)
    checked(
        "JoReSEnhance", image=image, exposure=0.0, strength=0.5, steps=1, seed=0, semantic=True, model_name=SHIPPED,
        mask=mask,
    )  # fmt: skip
    assert seen == set(pack.nodes)


def test_menus_offer_safetensors_alone(pack):
    folder = pack.base / "models" / "jores"
    (folder / "below").mkdir(parents=True, exist_ok=True)
    for name in ("mine.safetensors", "below/other.safetensors", "old.pt", "old.ckpt", "old.bin", "readme.txt"):
        (folder / name).write_bytes(b"")
    try:
        slots = [s for node in pack.nodes.values() for s in node.define_schema().inputs if s.id == "model_name"]
        assert len(slots) == 2
        for slot in slots:
            assert slot.options[0] == slot.default == SHIPPED
            assert all(name.endswith((".safetensors", "(shipped)")) for name in slot.options)
            assert {"mine.safetensors", str(Path("below/other.safetensors"))} <= set(slot.options)
    finally:
        for name in ("mine.safetensors", "below/other.safetensors", "old.pt", "old.ckpt", "old.bin", "readme.txt"):
            (folder / name).unlink()


def test_importing_the_pack_costs_the_host_next_to_nothing(comfy_tree):
    from benchmarks.import_time import measure

    run, _errors = measure(comfy_tree)
    # Processor time as a share of the host's own: 0.015 with most hosts, 0.053 with 0.30.0.
    assert run["foreign"] == [] and run["cpu_seconds"] <= 0.07 * run["host_cpu_seconds"], run


def test_readme_lists_every_node(pack):
    readme = (PACK / "README.md").read_text("utf-8")
    table = readme[readme.index("## The nodes") :].split("\n## ")[0]
    for node in pack.nodes.values():
        name = node.define_schema().display_name
        assert name in table, name
