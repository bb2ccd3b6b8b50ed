"""Colour profiles for pictures whose file names its colours by numbers (CICP, ITU-T H.273) and has no profile."""

from __future__ import annotations

import struct

import numpy as np

_D65, _C, _D50 = (0.3127, 0.3290), (0.310, 0.316), (0.9642, 1.0, 0.8249)
_SRGB, UNKNOWN = 1, 2
_SD = (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
_PRIMARIES = {
    4: ("System M", (0.67, 0.33, 0.21, 0.71, 0.14, 0.08), _C),
    5: ("BT.601, 625 lines", (0.64, 0.33, 0.29, 0.60, 0.15, 0.06), _D65),
    6: ("BT.601, 525 lines", _SD, _D65), 7: ("SMPTE 240M", _SD, _D65),
    8: ("Film", (0.681, 0.319, 0.243, 0.692, 0.145, 0.049), _C),
    9: ("BT.2020", (0.708, 0.292, 0.170, 0.797, 0.131, 0.046), _D65),
    11: ("DCI-P3", (0.680, 0.320, 0.265, 0.690, 0.150, 0.060), (0.314, 0.351)),
    12: ("Display P3", (0.680, 0.320, 0.265, 0.690, 0.150, 0.060), _D65),
    22: ("EBU 3213", (0.630, 0.340, 0.295, 0.605, 0.155, 0.077), _D65),
}  # fmt: skip
"""By their number: a name, x and y of red, green and blue, and those of white."""
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # sRGB's, to light


def profile_of(primaries: int) -> bytes | None:
    """ICC profile (version 4) with these primaries and the tone curve of sRGB; None for sRGB's and unknown ones."""
    if primaries not in _PRIMARIES:
        return None
    name, places, white = _PRIMARIES[primaries]
    adaptation = _adaptation(_xyz(*white))
    colours = np.stack([_xyz(*places[at : at + 2]) for at in (0, 2, 4)], 1)
    columns = (adaptation @ (colours * np.linalg.solve(colours, _xyz(*white)))).T
    curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(*_CURVE)
    tags = {b"desc": _text(name), b"cprt": _text("CC0"), b"wtpt": b"XYZ " + bytes(4) + _fixed(*_D50)}
    tags |= {b"chad": b"sf32" + bytes(4) + _fixed(*adaptation.flat)}
    tags |= {
        letter + b"XYZ": b"XYZ " + bytes(4) + _fixed(*xyz)
        for letter, xyz in zip((b"r", b"g", b"b"), columns, strict=True)
    }
    return _assembled(tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def is_known(primaries: int) -> bool:
    """Whether the colours of these primaries can be kept."""
    return primaries in _PRIMARIES or primaries in (_SRGB, UNKNOWN)


def _assembled(tags: dict[bytes, bytes]) -> bytes:
    table, body, start, places = b"", b"", 128 + 4 + 12 * len(tags), dict[bytes, int]()
    for name, content in tags.items():
        if content not in places:
            places[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, places[content], len(content))
    header = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed(*_D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1, (1 - x - y) / y])


def _adaptation(white: np.ndarray) -> np.ndarray:
    """Bradford's matrix from `white` (XYZ) to D50."""
    seen = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    return np.linalg.solve(_BRADFORD, seen[:, None] * _BRADFORD)


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))


def _text(text: str) -> bytes:
    coded = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(coded), 28) + coded
