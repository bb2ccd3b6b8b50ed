"""What MP4 and MOV hold in tracks and boxes that FFmpeg does not know: copied if that can be done right, else told."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import pytest

from jores.files.boxes import Box, add, boxes, other_boxes
from jores.files.clips import rewrite_video
from jores.files.tracks import differences
from tests.films import packets_of, write_film

TEXT = [("mov_text", {}, 0)]
XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
SEAL = bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + bytes(30)
GOPRO = {b"GPMF": b"DEVC\1\0\0\4abcd", b"FIRM": b"HD9.01.01.72.00", b"LENS": b"LNS123", b"\xa9TIM": b"\0\5\0\0a:b:c"}


def box(name: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, parts)), name) + b"".join(parts)


def film(path: Path, of_film: bytes = b"", in_moov: bytes = b"", before: bytes = b"", behind: bytes = b"") -> Path:
    """A film with these boxes in moov/udta, in moov, and before and behind moov, which is the last box of FFmpeg's."""
    write_film(path, count=2, subtitles=TEXT, words={"title": "night"})
    data = path.read_bytes()
    moov = [*boxes(io.BytesIO(data), 0, len(data))][-1]
    inner = data[moov.body : moov.end]
    udta = next(b for b in boxes(io.BytesIO(inner), 0, len(inner)) if b.name == b"udta")
    inner = inner[: udta.start] + box(b"udta", inner[udta.body : udta.end], of_film) + in_moov
    path.write_bytes(data[: moov.start] + before + box(b"moov", inner) + behind)
    return path


def found(path: Path, *names: bytes) -> dict[bytes, bytes]:
    """Content of the boxes in a file, or in that box of it."""
    data = path.read_bytes()
    place = Box(b"", 0, 0, len(data))
    for name in names:
        place = next(b for b in boxes(io.BytesIO(data), place.body, place.end) if b.name == name)
    return {b.name: data[b.body : b.end] for b in boxes(io.BytesIO(data), place.body, place.end)}


def rewritten(source: Path, suffix: str | None = None) -> tuple[tuple[str, ...], Path]:
    target = source.with_name(f"out{suffix or source.suffix}")
    return rewrite_video(source, target, lambda frames: frames).left_out, target


@pytest.mark.parametrize("suffix", [".mov", ".mp4"])
@pytest.mark.parametrize("kind", [b"mebx", b"rtmd", b"camm", b"djmd", b"gpmd"])
def test_a_data_track_comes_back_whole_or_is_told(tmp_path, suffix, kind):
    """MOV held a track that did not say what its samples are, as of nearly every film of an iPhone; nothing told it."""
    source = write_film(tmp_path / "in.mp4", count=2, subtitles=TEXT).rename(tmp_path / f"in{suffix}")
    source.write_bytes(source.read_bytes().replace(b"tx3g", kind).replace(b"sbtl", b"meta"))
    told, target = rewritten(source)
    with av.open(str(source)) as reader:
        assert [s.type for s in reader.streams] == ["video", "data"]
    if kind == b"gpmd":
        assert told == () and packets_of(target, "data") == packets_of(source, "data")
        assert kind in target.read_bytes()
        return
    assert len(told) == 1 and told[0].startswith("data track 2 (")
    with av.open(str(target)) as reader:
        assert [s.type for s in reader.streams] == ["video"]
    assert b"stsd\0\0\0\0\0\0\0\1" in target.read_bytes() and b"\0\0\0\x10stsd" not in target.read_bytes()


def test_a_data_track_that_is_missing_in_the_result_is_told(tmp_path):
    source, target = write_film(tmp_path / "in.mp4", count=2, subtitles=TEXT), write_film(tmp_path / "out.mp4", count=2)
    source.write_bytes(source.read_bytes().replace(b"tx3g", b"gpmd").replace(b"sbtl", b"meta"))
    with av.open(str(source)) as before, av.open(str(target)) as after:
        assert [line.split(" (")[0] for line in differences(before, after, set())] == ["data track 2"]
        assert differences(before, after, {1}) == differences(before, before, set()) == []


@pytest.mark.parametrize("suffix", [".mov", ".mp4", ".m4v"])
def test_settings_of_cameras_and_xmp_are_copied(tmp_path, suffix):
    source = film(tmp_path / f"in{suffix}", b"".join(box(*item) for item in GOPRO.items()), behind=box(b"uuid", XMP))
    for _ in range(2):  # a result is as good a source
        told, target = rewritten(source)
        assert told == () and found(target)[b"uuid"] == XMP
        kept = found(target, b"moov", b"udta")
        assert {name: kept[name] for name in GOPRO} == GOPRO
        with av.open(str(target)) as reader:
            assert reader.metadata["title"] == "night" and len([*reader.decode(video=0)]) == 2
        source = target.rename(source)


LOST = {
    "free (GPS), moov/gps": {"in_moov": box(b"gps ", bytes(24)), "before": box(b"free", b"GPS ", bytes(200))},
    "free (GPS)": {"before": box(b"free", box(b"gps ", b"[1]$GPRMC"))},
    "moov/udta/thmb": {"of_film": box(b"thmb", bytes(4), b"\xff\xd8\xff\xe0", bytes(99))},
    "meta": {"behind": box(b"meta", bytes(4), box(b"hdlr", bytes(8), b"nrtm", bytes(13)))},
    "uuid (Content Credentials), sefd": {"behind": box(b"uuid", SEAL) + box(b"sefd", b"x")},
    "data of Insta360": {"behind": bytes(50) + b"8db42d694ccc418790edff439fe026bf"},
}


@pytest.mark.parametrize("what", LOST)
def test_boxes_that_are_not_copied_are_told(tmp_path, what):
    """As dash cams and cameras write them: they were dropped, and nothing told it."""
    told, target = rewritten(film(tmp_path / "in.mp4", **LOST[what]))
    assert told == (f"the file's box{'es' if ',' in what else ''} {what}",)
    assert set(found(target)) == {b"ftyp", b"free", b"mdat", b"moov"}


def test_in_another_container_all_boxes_are_told(tmp_path):
    source = film(tmp_path / "in.mov", box(b"GPMF", b"x"), behind=box(b"uuid", XMP))
    assert "the file's boxes moov/udta/GPMF, uuid (XMP)" in rewritten(source, ".mkv")[0]


def test_structure_and_tags_say_nothing(tmp_path):
    """Padding with remains of an older head, fragments, keys of phones, tags of cameras."""
    padding = box(b"free", b"\0\0\0\x08moov" * 9) + box(b"wide") + box(b"skip", bytes(9))
    place = box(b"\xa9xyz", struct.pack(">HH", 18, 0x15C7), b"+52.3731+004.8922/")
    keys = box(b"meta", box(b"hdlr", bytes(4), b"mhlr", b"mdta", bytes(13)))
    source = film(tmp_path / "in.mov", place, keys + box(b"iods", bytes(12)), padding, box(b"mfra") + bytes(5))
    told, target = rewritten(source)
    assert told == ()
    with av.open(str(target)) as reader:
        assert reader.metadata["location"] == "+52.3731+004.8922/"


def test_a_file_whose_head_comes_first_or_that_is_cut_stays_as_it_is(tmp_path):
    first = write_film(tmp_path / "first.mp4", count=2, muxer={"movflags": "faststart"})
    cut, source = tmp_path / "cut.mp4", film(tmp_path / "in.mp4", box(b"GPMF", b"x"))
    cut.write_bytes(source.read_bytes()[:-20])
    for path in (first, cut):
        before = path.read_bytes()
        assert not add(path, other_boxes(source)) and path.read_bytes() == before
    assert other_boxes(cut).report(copied=False) == []
