"""ComfyUI's HTTP and websocket interface, as a browser uses it: queue a graph, follow it, fetch its pictures."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

Prompt = dict[str, dict[str, Any]]
"""A graph in API format: node id -> {"class_type": ..., "inputs": {...}}."""

EXAMPLE, FOLDER = "JoReSLoadExample", "JoReSLoadFolder"
EXAMPLES = {
    "coffee": "enhance_low_light.input.png",
    "portrait": "jores_five_stages.input.png",
    "region": "only_this_region.input.png",
    "clip": "video_without_flicker.input.mp4",
}
"""What Load Example Photograph calls the pictures in workflows/."""

ProgressCallback = Callable[[str, dict[str, Any]], None]
"""Called with the type and data of each event of the graph: "executing" {"node"}, "progress" {"node", "value",
"max"}, "executed" {"node", "output"}, ...; a live preview arrives as "preview" {"bytes"} (an image behind a header)."""

_FINAL = {"execution_success", "execution_error", "execution_interrupted"}
_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine's loopback


def with_own(prompt: Prompt, name: str) -> None:
    """Put Load Image or Load Video with this file of the input folder in the place of what loads the examples."""
    for key in {key for key, node in prompt.items() if node["class_type"] == FOLDER}:
        prompt[key] |= {"class_type": "LoadImage", "inputs": {"image": name}}
        for node in prompt.values():
            node["inputs"] |= {slot: "JoReS/folder" for slot, link in node["inputs"].items() if link == [key, 1]}
    examples = {key for key, node in prompt.items() if node["class_type"] == EXAMPLE}
    for key in examples:
        film = prompt[key]["inputs"]["picture"] == "clip"
        prompt[key] |= {"class_type": "LoadVideo", "inputs": {"file": name}} if film else {
            "class_type": "LoadImage", "inputs": {"image": name},
        }  # fmt: skip
        for node in prompt.values() if film else ():
            for slot, link in node["inputs"].items():
                if isinstance(link, list) and link[0] == key:
                    node["inputs"][slot] = [key, 0]


class HostError(RuntimeError):
    """The host did not start, stopped answering, or could not be reached."""


class PromptError(RuntimeError):
    """The host refused a graph or failed to run it.

    `details` is the host's own answer: for a refused graph {"error", "node_errors"}, for a failed one the
    data of "execution_error" or "execution_interrupted" (node_id, node_type, exception_message, traceback, ...).
    """

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details


class Client:
    """A connection to one server; its events start with the construction. Use it in a `with` block.

    Args:
        url: "http://127.0.0.1:<port>".
    """

    def __init__(self, url: str) -> None:
        from .websocket import WebSocket  # needs aiohttp, which .venv has: dev.py starts without it

        self.url = url
        self.id = uuid.uuid4().hex
        parts = urllib.parse.urlsplit(url)
        self._events = WebSocket(parts.hostname, parts.port, f"/ws?clientId={self.id}")
        self._ended: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._events.close()

    def object_info(self, node_id: str | None = None) -> dict[str, Any]:
        """Return what the host says of its nodes (or of one): inputs, outputs, names, module."""
        return self._json("/object_info" + (f"/{urllib.parse.quote(node_id)}" if node_id else ""))

    def queue(self, prompt: Prompt) -> str:
        """Queue a graph in API format and return its id. Raises PromptError when the host finds it invalid."""
        try:
            return self._json("/prompt", {"prompt": prompt, "client_id": self.id})["prompt_id"]
        except urllib.error.HTTPError as error:
            details = json.loads(error.read())
            raise PromptError(_describe_refusal(details), details) from None

    def wait(
        self, prompt_id: str, timeout: float = 120.0, on_progress: ProgressCallback | None = None
    ) -> dict[str, Any]:
        """Follow a queued graph to its end and return its history entry ("outputs", "status", ...).

        Raises:
            PromptError: a node failed, or the graph was interrupted.
            HostError: it took longer than `timeout` seconds, or the host went away.
        """
        deadline = time.monotonic() + timeout
        while prompt_id not in self._ended:
            left = deadline - time.monotonic()
            if left <= 0:
                raise HostError(f"the graph was not done after {timeout:g} s")
            self._read_event(prompt_id, left, on_progress)
        details = self._ended.pop(prompt_id)
        if details["type"] != "execution_success":
            raise PromptError(_describe_failure(details), details)
        return self._history(prompt_id)

    def run(
        self, prompt: Prompt, timeout: float = 120.0, on_progress: ProgressCallback | None = None
    ) -> dict[str, Any]:
        """`queue` and `wait` in one."""
        return self.wait(self.queue(prompt), timeout, on_progress)

    def interrupt(self) -> None:
        """Ask the host to stop the graph that runs now."""
        self._request("/interrupt", b"{}", "application/json")

    def upload(self, picture: Path, name: str | None = None) -> str:
        """Put a picture into the host's input folder; return the name it got there.

        A file of that name with other content is kept: the host then finds the new one a free name.
        """
        boundary = uuid.uuid4().hex
        filename = (name or picture.name).replace('"', "_")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{filename}"\r\n\r\n'
        body = head.encode() + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        return json.loads(self._request("/upload/image", body, f"multipart/form-data; boundary={boundary}"))["name"]

    def pictures(self, entry: dict[str, Any], node: str | None = None, kind: str = "output") -> list[bytes]:
        """Fetch the encoded pictures of a history entry, of all nodes or one.

        Args:
            kind: "output" for what Save Image wrote, "temp" for previews.
        """
        outputs = [output for key, output in entry["outputs"].items() if node in (None, key)]
        images = [image for output in outputs for image in output.get("images", ()) if image["type"] == kind]
        return [self._request("/view?" + urllib.parse.urlencode(image)) for image in images]

    def _read_event(self, prompt_id: str, timeout: float, on_progress: ProgressCallback | None) -> None:
        """Take one event off the stream. Another graph's end is kept for its own `wait`."""
        try:
            message = self._events.receive(timeout)
        except OSError as error:
            raise HostError(f"the connection to the host was lost: {error}") from error
        if message is None:
            return
        if isinstance(message, bytes):
            kind, data, mine = "preview", {"bytes": message}, True
        else:
            event = json.loads(message)
            kind, data = event["type"], event.get("data") or {}
            mine = data.get("prompt_id") == prompt_id
            if kind in _FINAL:
                self._ended[data["prompt_id"]] = {"type": kind, **data}
        if mine and on_progress is not None:
            on_progress(kind, data)

    def _history(self, prompt_id: str) -> dict[str, Any]:
        # The host announces success a moment before it files the entry.
        for _attempt in range(100):
            entries = self._json(f"/history/{prompt_id}")
            if prompt_id in entries:
                return entries[prompt_id]
            time.sleep(0.05)
        raise HostError(f"the host has no history of graph {prompt_id}")

    def _json(self, path: str, data: object = None) -> dict[str, Any]:
        body = None if data is None else json.dumps(data).encode()
        return json.loads(self._request(path, body, "application/json"))

    def _request(self, path: str, body: bytes | None = None, content_type: str | None = None) -> bytes:
        headers = {"Content-Type": content_type} if body is not None else {}
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        with _LOCAL.open(request, timeout=60) as answer:
            return answer.read()


def _describe_refusal(details: dict[str, Any]) -> str:
    lines = [details["error"]["message"]]
    for node_id, node in details["node_errors"].items():
        lines += [f"{node['class_type']} ({node_id}): {e['message']}: {e['details']}" for e in node["errors"]]
    return "; ".join(lines)


def _describe_failure(details: dict[str, Any]) -> str:
    where = f"{details['node_type']} ({details['node_id']})"
    if details["type"] == "execution_interrupted":
        return f"interrupted in {where}"
    return f"{where} failed: {details['exception_type']}: {details['exception_message'].strip()}"
