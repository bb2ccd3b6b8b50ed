"""Boxes of MP4 and MOV files that FFmpeg neither reads nor writes: GPS of dash cams, settings of cameras, XMP.

Those that say something of the whole film are copied; what points to places in the file, or holds a picture, is named.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MOST = 1 << 24  # bytes of a box that is copied
_HEAD = 4096  # bytes in which a box tells what it is
_PADDING = {b"free", b"skip", b"wide"}
_STRUCTURE = _PADDING | {
    b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"ssix", b"styp", b"pdin", b"prft", b"pnot", b"imda",
    b"mvhd", b"trak", b"udta", b"mvex", b"iods", b"cmov", b"pssh", b"ctab", b"clip", b"rmra", b"hdlr",
}  # fmt: skip
# Children of moov/udta that FFmpeg reads as tags, chapters or cover art, which are copied and compared as such.
_AS_TAGS = {
    *b"@PRM @PRQ aART akID apID catg cpil cprt desc disk egid gnre hdvd HMMT keyw ldes loci manu modl pcst".split(),
    *b"pgap purd rtng soaa soal soar soco sonm sosn stik trkn tven tves tvnn tvsh tvsn chpl covr".split(),
    *(b"meta", b"name", b"hdlr"),
    *(b"\xa9" + name for name in b"ART PRD alb aut chp cmt com cpy day dir dis ed1 enc fmt gen grp hst inf".split()),
    *(b"\xa9" + name for name in b"lyr mak mod nam ope prd prf req src st3 swr too trk url wrn wrt xyz".split()),
}  # fmt: skip
_TAGS = (b"mdta", b"mdir")  # kinds of a "meta" box that FFmpeg reads
XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_OF_CODECS = bytes.fromhex("50524f4621d24fcebb88695cfac9c740")  # "PROF", which repeats what the tracks say
_SEAL = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_INSTA360 = b"8db42d694ccc418790edff439fe026bf"  # the last bytes of what it writes behind the boxes
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n")


class Box(NamedTuple):
    """A box of a file: its type, and where it and its content begin and it ends, in bytes."""

    name: bytes
    start: int
    body: int
    end: int


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """The boxes between two places of a file. It ends where there is no whole box."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        size, name, body = *struct.unpack_from(">I4s", head), start + 8
        if size == 1 and len(head) == 16:
            (size,), body = struct.unpack_from(">Q", head, 8), start + 16
        elif size == 0 and end == file.seek(0, io.SEEK_END):
            size = end - start
        if start + size < body or start + size > end or not _is_name(name):
            return
        yield Box(name, start, body, start + size)
        start += size


def _is_name(name: bytes) -> bool:
    return name.replace(b"\xa9", b"c").isascii() and name.decode("latin-1").isprintable()


@dataclass
class OtherBoxes:
    """What a file holds in boxes outside its tracks.

    Attributes:
        of_film: boxes of moov/udta that can be copied.
        behind: boxes of the file itself that can be copied.
        named: descriptions of the others.
    """

    of_film: list[bytes] = field(default_factory=list)
    behind: list[bytes] = field(default_factory=list)
    named: list[str] = field(default_factory=list)

    def report(self, copied: bool) -> list[str]:
        """Description of what is lost, with the boxes that could be copied unless they were."""
        words = [] if copied else [f"moov/udta/{_word(data[4:8])}" for data in self.of_film]
        words += [] if copied else ["uuid (XMP)"] * len(self.behind)
        words = [*dict.fromkeys([*words, *self.named])]
        return [f"the file's box{'es' if words[1:] else ''} {', '.join(words)}"] if words else []


def other_boxes(path: Path) -> OtherBoxes:
    """What the MP4 or MOV file `path` holds besides tracks, tags and structure."""
    found = OtherBoxes()
    with open(path, "rb") as file:
        for box in boxes(file, 0, path.stat().st_size):
            if box.name == b"moov":
                _of_moov(file, box, found)
            elif box.name == b"uuid" and _head(file, box).startswith(XMP) and box.end - box.start <= _MOST:
                found.behind.append(_bytes(file, box))
            elif words := _description(file, box):
                found.named.append(words)
        file.seek(-min(len(_INSTA360), path.stat().st_size), io.SEEK_END)
        if file.read() == _INSTA360:
            found.named.append("data of Insta360")
    return found


def _of_moov(file: BinaryIO, moov: Box, found: OtherBoxes) -> None:
    for box in boxes(file, moov.body, moov.end):
        if box.name == b"udta":
            _of_udta(file, box, found)
        elif words := _description(file, box):
            found.named.append(f"moov/{words}")


def _of_udta(file: BinaryIO, udta: Box, found: OtherBoxes) -> None:
    for box in boxes(file, udta.body, udta.end):
        if box.name in _AS_TAGS | _PADDING:
            continue
        data = _bytes(file, box) if box.end - box.start <= _MOST else b""
        if data and not any(mark in data for mark in _PICTURES):  # which shows the film as it was
            found.of_film.append(data)
        else:
            found.named.append(f"moov/udta/{_word(box.name)}")


def _description(file: BinaryIO, box: Box) -> str | None:
    """Description of a box; None if it is structure, or FFmpeg reads it."""
    head = _head(file, box)
    if box.name == b"uuid":
        kinds = {XMP: "uuid (XMP)", _SEAL: "uuid (Content Credentials)", _OF_CODECS: None}
        return kinds.get(head[:16], f"uuid {head[:16].hex()}")
    if box.name in _PADDING and (head.startswith(b"GPS ") or b"gps " in head):  # dash cams
        return f"{_word(box.name)} (GPS)"
    if box.name == b"meta":
        at = head.find(b"hdlr")
        return None if head[at + 12 : at + 16] in _TAGS else "meta"
    return None if box.name in _STRUCTURE else _word(box.name)


def _head(file: BinaryIO, box: Box) -> bytes:
    file.seek(box.body)
    return file.read(min(_HEAD, box.end - box.body))


def _bytes(file: BinaryIO, box: Box) -> bytes:
    file.seek(box.start)
    return file.read(box.end - box.start)


def _word(name: bytes) -> str:
    return name.decode("latin-1").strip()


def add(path: Path, parts: OtherBoxes) -> bool:
    """Adds the boxes to an MP4 or MOV file; False, and the file is unchanged, if its moov is not its last box."""
    with open(path, "r+b") as file:
        end = path.stat().st_size
        last = [*boxes(file, 0, end)][-1:]
        if not last or last[0].name != b"moov" or last[0].end != end or last[0].body - last[0].start != 8:
            return False
        moov = last[0]
        udta = next((box for box in boxes(file, moov.body, end) if box.name == b"udta"), None)
        old = b"" if udta is None else _bytes(file, udta)[8:]
        kept = [_bytes(file, box) for box in boxes(file, moov.body, end) if box.name != b"udta"]
        if parts.of_film or udta is not None:
            kept.append(_box(b"udta", old + b"".join(parts.of_film)))
        file.seek(moov.start)
        file.write(_box(b"moov", b"".join(kept)) + b"".join(parts.behind))
    return True


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, name) + body


def is_described(data: bytes) -> bool:
    """Whether every track of an MP4 or MOV file in memory says what its samples are (stsd).

    FFmpeg's muxer for MOV takes data tracks of any kind, and leaves that out for those it does not know.
    """
    at = data.find(b"stsd")
    while at >= 0:
        if struct.unpack_from(">I", data, at - 4)[0] <= 16:
            return False
        at = data.find(b"stsd", at + 4)
    return True
