"""The websocket of ComfyUI's event stream, read without async code: aiohttp's client, which the host brings.

Its event loop has a thread of its own, because the thread that reads may run one already, as Playwright does.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Coroutine
from typing import Any

import aiohttp

_LAST = 10.0  # seconds that sending and closing may take


class WebSocket:
    """One connection to `ws://host:port{path}`.

    Raises:
        ConnectionError: the server refused the upgrade, or closed the connection while a message was awaited.
    """

    def __init__(self, host: str, port: int, path: str, *, timeout: float = 30.0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._messages: queue.SimpleQueue[str | bytes | None] = queue.SimpleQueue()
        self._session: aiohttp.ClientSession | None = None
        try:
            self._run(self._connect(f"http://{host}:{port}{path}"), timeout)
        except aiohttp.ClientResponseError as error:
            self.close()
            raise ConnectionError(f"{host}:{port} refused the websocket: {error.status}") from error
        except BaseException:
            self.close()
            raise

    def send(self, text: str) -> None:
        self._run(self._socket.send_str(text), _LAST)

    def receive(self, timeout: float) -> str | bytes | None:
        """Return the next text or binary message, or None when none is complete within `timeout` seconds."""
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None:
            self._messages.put(None)  # whoever asks again is told again
            raise ConnectionError("the server closed the websocket")
        return message

    def close(self) -> None:
        if self._loop.is_closed():
            return
        if self._session is not None:
            self._run(self._session.close(), _LAST)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LAST)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any], timeout: float) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    async def _connect(self, url: str) -> None:
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(url, max_msg_size=0)
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self._messages.put(message.data)
        self._messages.put(None)
