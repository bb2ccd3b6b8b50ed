"""A WebSocket client (RFC 6455) of the standard library, as much of it as ComfyUI's event stream needs."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import time

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x8, 0x9, 0xA


class WebSocket:
    """One connection to `ws://host:port{path}`.

    Raises:
        ConnectionError: the server refused the upgrade, or closed the connection while a message was awaited.
    """

    def __init__(self, host: str, port: int, path: str, *, timeout: float = 30.0) -> None:
        self._socket = socket.create_connection((host, port), timeout)
        self._buffer = bytearray()
        self._handshake(f"{host}:{port}", path, time.monotonic() + timeout)

    def send(self, text: str) -> None:
        self._send(_TEXT, text.encode())

    def receive(self, timeout: float) -> str | bytes | None:
        """Return the next text or binary message, or None when none is complete within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        kind, message = _TEXT, b""
        while True:
            frame = self._take_frame()
            if frame is None:
                if not self._fill(deadline):
                    # A message half received is rare and local: wait for its rest rather than lose it.
                    if not message:
                        return None
                    deadline = time.monotonic() + timeout
                continue
            final, opcode, payload = frame
            if opcode == _CLOSE:
                raise ConnectionError("the server closed the websocket")
            if opcode == _PING:
                self._send(_PONG, payload)
            elif opcode != _PONG:
                kind = kind if opcode == _CONTINUATION else opcode
                message += payload
                if final:
                    return message.decode() if kind == _TEXT else message

    def close(self) -> None:
        self._socket.close()

    def _handshake(self, authority: str, path: str, deadline: float) -> None:
        key = base64.b64encode(os.urandom(16))
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill(deadline):
                raise ConnectionError(f"no answer to the websocket handshake with {authority}")
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        if not head.startswith(b"HTTP/1.1 101") or accept not in head:
            raise ConnectionError(f"{authority} refused the websocket: {head.splitlines()[0].decode('latin-1')}")
        self._buffer = bytearray(rest)

    def _fill(self, deadline: float) -> bool:
        """Read what has arrived; False when nothing did before the deadline."""
        self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))  # 0 would mean non-blocking
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            return False
        if not data:
            raise ConnectionError("the server closed the websocket")
        self._buffer += data
        return True

    def _take_frame(self) -> tuple[bool, int, bytes] | None:
        """Cut the next whole frame off the buffer: (is the last of its message, opcode, payload)."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1] & 0x7F, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + length:
            return None
        frame = bool(buffer[0] & 0x80), buffer[0] & 0x0F, bytes(buffer[start : start + length])
        del buffer[: start + length]
        return frame

    def _send(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)  # a client must mask, a server must not
        size = len(payload)
        if size < 126:
            head = bytes([0x80 | opcode, 0x80 | size])
        elif size < 1 << 16:
            head = bytes([0x80 | opcode, 0x80 | 126]) + size.to_bytes(2, "big")
        else:
            head = bytes([0x80 | opcode, 0x80 | 127]) + size.to_bytes(8, "big")
        self._socket.sendall(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)))
