"""What camera raw files say besides their pixels comes back, wherever their format keeps it; the rest is named."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from PIL import Image

from jores.files import exif, jpeg
from jores.files.pictures import read_image, write_image
from jores.files.raw_notes import notes
from tests.dng import write_dng
from tests.files_by_hand import Tags, exif_of, inner_tags_of, levels, tags_of

ORIENTATION, MODEL, LENS, NOTE, GPS = 0x0112, 0x0110, 0xA434, 0x927C, 0x8825
PACKET = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><xmp:Rating>5</xmp:Rating></x:xmpmeta>'
CANON = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def camera(order: str) -> Tags:
    turned, resolution = struct.pack(order + "H", 6), struct.pack(order + "II", 72, 1)
    return {MODEL: (2, b"Test\0"), ORIENTATION: (3, turned), 282: (5, resolution)}


def exposure() -> Tags:
    return {LENS: (2, "Ü 50 mm".encode() + b"\0"), NOTE: (7, bytes(range(100)))}


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, name) + body


def cr3(order: str) -> bytes:
    place = exif_of(order, {1: (2, b"N\0"), 2: (5, struct.pack(order + "6I", 52, 1, 22, 1, 12, 1))})
    parts = ((b"CMT1", camera(order)), (b"CMT2", exposure()), (b"CMT3", {1: (3, bytes(2))}))
    inside = b"".join(box(name, exif_of(order, tags)) for name, tags in parts) + box(b"CMT4", place)
    start = box(b"ftyp", b"crx \0\0\0\1crx isom")
    return start + box(b"moov", box(b"uuid", CANON + box(b"CNCV", b"CanonCR3") + inside)) + box(b"uuid", XMP + PACKET)


def jpeg_of(order: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels()).save(buffer, "JPEG")
    return jpeg.with_segments(buffer.getvalue(), exif.PREFIX + exif_of(order, camera(order), exposure()), PACKET, [])


def raf(order: str) -> bytes:
    preview = jpeg_of(order)
    head = b"FUJIFILMCCD-RAW 0201FF383501X-T1".ljust(84, b"\0") + struct.pack(">II", 160, len(preview))
    return head.ljust(160, b"\0") + preview + bytes(400)


def mrw(order: str) -> bytes:
    block = exif_of(order, camera(order), exposure())
    parts = b"\0PRD" + struct.pack(">I", 24) + bytes(24) + b"\0TTW" + struct.pack(">I", len(block)) + block
    return b"\0MRM" + struct.pack(">I", len(parts)) + parts + bytes(400)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("make", [cr3, raf, mrw])
def test_formats_that_are_no_tiff(order, make):
    found = notes(make(order))
    assert found.exif is not None and found.orientation == 6
    data = found.exif.removeprefix(exif.PREFIX)
    assert tags_of(data)[MODEL][1] == b"Test\0" and 282 not in tags_of(data)  # the resolution is the preview's
    assert inner_tags_of(data)[LENS][1] == "Ü 50 mm".encode() + b"\0"
    assert NOTE not in inner_tags_of(data) or inner_tags_of(data)[NOTE][1] == bytes(range(100))
    assert found.xmp == (None if make is mrw else PACKET)
    assert found.left_out == (("the maker's notes (CMT3)",) if make is cr3 else ())
    assert (GPS in tags_of(data)) == (make is cr3)


@pytest.mark.parametrize("make", [cr3, raf, mrw])
def test_damaged_ones_end_nothing(make):
    whole = make("<")
    for cut in range(0, len(whole), 5):
        notes(whole[:cut])
        notes(whole[:cut] + b"\xff" * 6 + whole[cut + 6 :])
    assert notes(b"no camera raw").left_out == ("its EXIF, which was not found",)


@pytest.mark.parametrize(
    ("suffix", "order", "header"),
    [(".orf", "<", b"IIRO"), (".orf", "<", b"IIRS"), (".orf", ">", b"MMOR"), (".rw2", "<", b"IIU\0")],
)  # fmt: skip
def test_headers_of_their_own(tmp_path: Path, suffix, order, header):
    """Before: the results of Olympus and Panasonic cameras had no EXIF."""
    pytest.importorskip("rawpy")
    path = tmp_path / f"a{suffix}"
    write_dng(path, 0.05, orientation=6, order=order, extra=((700, 1, len(PACKET), PACKET, True),))
    path.write_bytes(header + path.read_bytes()[4:])
    picture = read_image(path)
    assert picture.pixels.shape == (3, 64, 48) and picture.metadata.left_out == ()
    write_image(tmp_path / "a.tif", picture)
    found = tags_of((tmp_path / "a.tif").read_bytes())
    assert found[MODEL][1] == b"Camera\0" and found[700][1] == PACKET and ORIENTATION not in found
