"""Help pages and translations say what the nodes are today; and the host hands them out.

locales/en follows from the schemas. After a change of them renew it, and then bring the page and the other languages
along until these tests pass:

    python3 dev.py test tests/test_help.py --renew-schema
"""

from __future__ import annotations

import ast
import json
import re
import urllib.parse
import urllib.request
from typing import Any

import pytest
from PIL import Image

from host.archive import archive_files
from host.server import PACK, PACK_FOLDER, Server

DOCS, LOCALES = PACK / "nodes" / "web" / "docs", PACK / "locales"
LANGUAGES = ("de", "es", "fr", "ja", "ko", "ru", "zh")
SECTIONS = ["Inputs", "Outputs", "When not to use it", "A typical chain", "When something goes wrong"]
SAME_EVERYWHERE = {"eta", "latent", "retinex", "sigmas"}  # terms of art that other languages may leave as they are


@pytest.fixture(scope="module")
def schemas(jores_pack_nodes) -> dict[str, Any]:
    return {node_id: node.define_schema() for node_id, node in jores_pack_nodes.items()}


def english(schemas: dict[str, Any]) -> dict[str, Any]:
    """locales/en/nodeDefs.json: the schemas' own texts, in the form in which the front end looks them up."""
    table = {}
    for node_id, schema in schemas.items():
        inputs = {}
        for slot in schema.inputs:
            inputs[slot.id] = {"name": slot.display_name or slot.id, "tooltip": slot.tooltip}
            if getattr(slot, "control_after_generate", None):
                inputs["control_after_generate"] = {"name": "control after generate"}
        outputs = {str(i): {"name": o.display_name, "tooltip": o.tooltip} for i, o in enumerate(schema.outputs)}
        texts = {"display_name": schema.display_name, "description": schema.description}
        table[node_id] = {**texts, "inputs": inputs, "outputs": outputs}
    return table


def categories(schemas: dict[str, Any]) -> list[str]:
    """The pack's own part of the menu's path; ComfyUI translates the rest."""
    return sorted({part for schema in schemas.values() for part in schema.category.split("/")[1:]})


def read(language: str, name: str) -> dict[str, Any]:
    return json.loads((LOCALES / language / f"{name}.json").read_text("utf-8"))


def written(table: dict[str, Any]) -> str:
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


def flat(table: dict[str, Any], path: str = "") -> dict[str, str]:
    """{"a": {"b": "text"}} -> {"a.b": "text"}."""
    texts = {}
    for key, value in table.items():
        texts |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return texts


def page_sections(node_id: str) -> dict[str, str]:
    """Heading -> text under it; the page's head stands under ''."""
    parts = re.split(r"^## (.+)\n", (DOCS / f"{node_id}.md").read_text("utf-8"), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def expected_head(slot: Any) -> str:
    """How a page introduces an input: its name, and in brackets what the widget offers."""
    default = getattr(slot, "default", None)
    if isinstance(default, bool):
        return f"**{slot.id}** (default {'on' if default else 'off'}):"
    if isinstance(default, int | float) and not getattr(slot, "control_after_generate", None):
        least, most, usual = (f"{number:.7g}" for number in (slot.min, slot.max, default))
        return f"**{slot.id}** ({least} to {most}, default {usual}):"
    socket = slot.optional and default is None
    return f"**{slot.id}** (optional):" if socket else f"**{slot.id}**:"


def test_every_node_has_its_page_and_every_page_a_node(schemas):
    assert {path.stem for path in DOCS.glob("*.md")} == set(schemas)
    assert {path.stem for path in DOCS.glob("*.jpg")} == set(schemas)
    assert sum(path.stat().st_size for path in DOCS.iterdir()) < 2**20
    for node_id, schema in schemas.items():
        sections = page_sections(node_id)
        usual = [name for name in sections if name in ("", *SECTIONS)]
        assert usual == ["", *SECTIONS] and len(sections) <= len(usual) + 1, node_id  # and one of its own
        assert sections[""].startswith(f"# {schema.display_name}\n"), node_id
        assert all(len(text.strip()) > 25 for text in sections.values()), node_id
        assert f"**{schema.display_name}**" in sections["A typical chain"], node_id
        (shown,) = re.findall(r"^!\[.{10,}\]\((.+)\)$", sections[""], flags=re.MULTILINE)
        with Image.open(DOCS / shown) as picture:
            picture.load()
            assert shown == f"{node_id}.jpg" and min(picture.size) >= 150, node_id


def test_pages_explain_every_input_and_output(schemas):
    for node_id, schema in schemas.items():
        sections = page_sections(node_id)
        heads = [re.match(r"\* (\*\*.+?:)", line)[1] for line in sections["Inputs"].strip().splitlines()]
        assert heads == [expected_head(slot) for slot in schema.inputs], node_id
        heads = re.findall(r"^\* \*\*(.+?)\*\*:", sections["Outputs"], flags=re.MULTILINE)
        assert heads == [slot.display_name for slot in schema.outputs], node_id


def test_pages_speak_of_nodes_and_messages_that_exist(schemas):
    names = {schema.display_name for schema in schemas.values()}
    sources = [*(PACK / "nodes").rglob("*.py"), *(PACK / "jores").rglob("*.py")]
    trees = [ast.parse(path.read_text("utf-8")) for path in sources]
    texts = [n.value for t in trees for n in ast.walk(t) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    for node_id in schemas:
        text = (DOCS / f"{node_id}.md").read_text("utf-8")
        quoted = re.findall(r"(?<!\w)'([A-Z][^'\n]+ [^'\n]+)'", re.sub(r'\*\*".+?"\*\*', "", text))
        assert set(quoted) <= names, node_id
        for message in re.findall(r'\*\*"(.+?)"\*\*', text):
            assert any(message in known for known in texts), f"{node_id}.md quotes {message!r}, which no node says"


def test_english_is_the_schemas(schemas, pytestconfig):
    tables = {"nodeDefs": english(schemas), "main": {"nodeCategories": {part: part for part in categories(schemas)}}}
    for name, table in tables.items():
        path = LOCALES / "en" / f"{name}.json"
        if pytestconfig.getoption("renew_schema"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(written(table), "utf-8", newline="\n")
        assert path.read_text("utf-8") == written(table), "see this file's head for how to renew locales/en"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_is_complete_and_of_todays_text(language: str, schemas):
    ours, theirs = flat(english(schemas)), flat(read(language, "nodeDefs"))
    assert not ours.keys() - theirs.keys(), "missing"
    assert not theirs.keys() - ours.keys(), "surplus"
    assert list(read(language, "main")["nodeCategories"]) == categories(schemas)
    names = {schema.display_name: theirs[f"{node_id}.display_name"] for node_id, schema in schemas.items()}
    assert len(set(names.values())) == len(names), "two nodes of one name"
    for key, text in ours.items():
        translated = theirs[key]
        assert translated.strip(), key
        assert not re.search(r"[{}@|]", text + translated), f"{key}: these mean something to vue-i18n"
        if key.endswith(("tooltip", "description")):
            assert translated != text, f"{key} is still English"
        assert missing_from(text, translated, names) == [], f"{key} lacks these: {translated}"


def missing_from(text: str, translated: str, names: dict[str, str]) -> list[str]:
    """What must survive translation: numbers, files and folders, and other nodes under their translated names."""
    literal = r"\d+(?:\.\d+)?|\w*\.(?:json|safetensors)|models/\w+|SamplerCustomAdvanced|RandomNoise"
    wanted = re.findall(literal, text)
    wanted += [names[quoted] for quoted in re.findall(r"(?<!\w)'([^']+)'", text) if quoted in names]
    return [piece for piece in wanted if piece not in translated]


def test_names_of_slots_are_one_word_for_one_thing(schemas):
    """`exposure` must not have two names in two nodes of a language."""
    for language in LANGUAGES:
        seen: dict[str, set[str]] = {}
        for node in read(language, "nodeDefs").values():
            for slot, texts in node["inputs"].items():
                seen.setdefault(slot, set()).add(texts["name"])
        assert {slot: found for slot, found in seen.items() if len(found) > 1} == {}, language
        same = {slot for slot, found in seen.items() if found == {slot}}
        assert len(same - SAME_EVERYWHERE) <= 4, f"{language}: names that are still English: {sorted(same)}"


def test_pages_and_languages_are_published():
    files = set(archive_files(PACK))
    for path in (*DOCS.iterdir(), *LOCALES.rglob("*.json")):
        assert path.relative_to(PACK).as_posix() in files, path


def test_the_host_hands_them_out(comfy_server: Server, schemas):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def fetch(path: str) -> bytes:
        url = comfy_server.url + urllib.parse.quote(path, safe="/()")  # as browsers do it
        with opener.open(url, timeout=60) as answer:
            return answer.read()

    # ComfyUI merges all packs' texts; ours are the only ones here.
    served = json.loads(fetch("/i18n"))
    for language in ("en", *LANGUAGES):
        assert served[language]["nodeDefs"] == read(language, "nodeDefs")
        assert served[language]["nodeCategories"] == read(language, "main")["nodeCategories"]
    info = json.loads(fetch("/object_info"))
    for node_id in schemas:
        # The front end asks for docs/<id>/<language>.md first, then for docs/<id>.md of the module's folder.
        assert info[node_id]["python_module"] == f"custom_nodes.{PACK_FOLDER}"
        folder = f"/extensions/{PACK_FOLDER}/docs/"
        assert fetch(f"{folder}{node_id}.md") == (DOCS / f"{node_id}.md").read_bytes()
        assert fetch(f"{folder}{node_id}.jpg") == (DOCS / f"{node_id}.jpg").read_bytes()
