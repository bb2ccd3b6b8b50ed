"""The websocket of ComfyUI's event stream, read without async code: aiohttp's client, which the host brings."""

from __future__ import annotations

import asyncio

import aiohttp


class WebSocket:
    """One connection to `ws://host:port{path}`.

    Raises:
        ConnectionError: the server refused the upgrade, or closed the connection while a message was awaited.
    """

    def __init__(self, host: str, port: int, path: str, *, timeout: float = 30.0) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._loop.run_until_complete(self._connect(f"http://{host}:{port}{path}", timeout))
        except aiohttp.ClientResponseError as error:
            self.close()
            raise ConnectionError(f"{host}:{port} refused the websocket: {error.status}") from error
        except BaseException:
            self.close()
            raise

    async def _connect(self, url: str, timeout: float) -> None:
        self._session = aiohttp.ClientSession()
        self._socket = await asyncio.wait_for(self._session.ws_connect(url, max_msg_size=0), timeout)

    def send(self, text: str) -> None:
        self._loop.run_until_complete(self._socket.send_str(text))

    def receive(self, timeout: float) -> str | bytes | None:
        """Return the next text or binary message, or None when none is complete within `timeout` seconds."""
        try:
            message = self._loop.run_until_complete(self._socket.receive(timeout))
        except asyncio.TimeoutError:  # noqa: UP041  (Python 3.10 has two of that name)
            return None
        if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            raise ConnectionError("the server closed the websocket")
        return message.data

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._session.close())
            self._loop.close()
