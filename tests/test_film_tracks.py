"""What a film's file holds besides its pictures: kept where the container can, told where it cannot."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import av
import pytest

from jores.cli import main
from jores.commands.signals import exit_on_signal
from jores.files.clips import VideoFileError, rewrite_video
from jores.files.tracks import user_metadata
from tests.films import packets_of, write_film
from tests.rich_films import FILMS, FONT, SECOND, drawn


def told(path: Path) -> dict:
    """All that a file says of itself."""
    with av.open(str(path)) as file:
        tracks = [(s.type, int(s.disposition), user_metadata(s.metadata)) for s in file.streams if s.type != "data"]
        chapters = [(c["metadata"]["title"], float(c["start"] * c["time_base"])) for c in file.chapters()]
        return {"tracks": tracks, "chapters": chapters, "words": user_metadata(file.metadata)}


@pytest.mark.parametrize("kind", FILMS)
def test_everything_else_in_the_file_stays(tmp_path, kind):
    source, target = (tmp_path / f"{name}.{kind}" for name in ("in", "out"))
    write_film(source, **FILMS[kind])
    report = rewrite_video(source, target, lambda frames: frames)
    assert told(target) == told(source) and report.left_out == ()
    for number in range(len(FILMS[kind]["audio"])):
        before, after = ([d for _, d in packets_of(path, "audio", number)] for path in (source, target))
        assert before == after
    if kind == "mkv":
        with av.open(str(target)) as file:
            assert [s.data for s in file.streams.attachments] == [FONT[2]]
            assert [bytes(p) for p in file.demux(file.streams.video[1]) if p.size] == [drawn("JPEG")]
    if "cover" in FILMS[kind] and FILMS[kind]["cover"]:
        assert packets_of(target, "video", 1)[0][1] == FILMS[kind]["cover"][1]


@pytest.mark.parametrize(
    ("kind", "suffix", "lost"),
    [("mkv", ".mp4", ["font.ttf", "subtitle track"]), ("mkv", ".ts", ["chapters", "cover art", "Commentary"]),
     ("mp4", ".avi", ["chapters", "cover art", "timecode", "flags"])],
)  # fmt: skip
def test_what_the_container_cannot_hold_is_told(tmp_path, kind, suffix, lost):
    source = write_film(tmp_path / f"in.{kind}", **FILMS[kind])
    report = rewrite_video(source, tmp_path / f"out{suffix}", lambda frames: frames)
    for word in lost:
        assert any(word in line for line in report.left_out), (word, report.left_out)


UNKNOWN = [(".mov", "pcm_s16le", b"sowt"), (".mov", "pcm_s24be", b"in24"), (".mp4", "flac", b"fLaC")]


def with_unknown_sound(path: Path, encoder: str, tag: bytes, count: int = 12) -> Path:
    """AAC, and behind it a track in a codec that nobody knows."""
    write_film(path, audio=[SECOND, (encoder, {}, 0)], count=count)
    path.write_bytes(path.read_bytes().replace(tag, b"zzz9"))
    return path


@pytest.mark.parametrize(("suffix", "encoder", "tag"), UNKNOWN, ids=[u[1] for u in UNKNOWN])
def test_a_track_in_an_unknown_codec_is_left_out_by_name(tmp_path, suffix, encoder, tag):
    source = with_unknown_sound(tmp_path / f"in{suffix}", encoder, tag)
    report = rewrite_video(source, tmp_path / f"out{suffix}", lambda frames: frames)
    assert [line for line in report.left_out if "audio track 3" in line and "unknown codec" in line]
    with av.open(str(tmp_path / f"out{suffix}")) as file:
        assert [s.codec_context.name for s in file.streams.audio] == ["aac"]


def test_the_command_line_tells_and_goes_on(tmp_path, nets, capsys):
    unknown = write_film(tmp_path / "a.mp4", count=2)
    lossy = with_unknown_sound(tmp_path / "b.mov", "pcm_s16le", b"sowt", count=2)
    unknown.write_bytes(unknown.read_bytes().replace(b"avc1", b"zzz9"))
    command = ["enhance", str(unknown), str(lossy), "--output", str(tmp_path / "out"), "--segmenter", "none"]
    assert main([*command, "--steps", "1", "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    first, second = map(json.loads, out.splitlines())
    assert "a.mp4" in first["error"] and "codec" in first["error"] and "a.mp4" in err
    assert any("audio track" in line for line in second["left_out"])


def test_pictures_that_change_their_size_are_refused_by_name(tmp_path):
    small, large = (write_film(tmp_path / f"{w}.ts", size=(64, w), options={"g": "1"}) for w in (96, 128))
    (tmp_path / "in.ts").write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(VideoFileError, match=r"in\.ts.*96x64 and 128x64"):
        rewrite_video(tmp_path / "in.ts", tmp_path / "out.ts", lambda frames: frames)
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob(".*"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without asking them")
@pytest.mark.parametrize("kind", ["SIGTERM", "SIGHUP"])
def test_what_is_half_written_goes_when_the_process_is_told_to_end(tmp_path, kind):
    source = write_film(tmp_path / "in.mkv", "ffv1")  # whose frames are written as they come
    (tmp_path / "out").mkdir()
    begun = []

    def interrupted(frames):
        yield from (next(frames), next(frames), next(frames))
        begun.extend((tmp_path / "out").glob(".*.tmp"))
        os.kill(os.getpid(), getattr(signal, kind))
        yield from frames

    inherited = signal.signal(getattr(signal, kind), signal.SIG_DFL)  # under nohup one is ignored, and stays so
    try:
        with pytest.raises(SystemExit) as ended, exit_on_signal():
            rewrite_video(source, tmp_path / "out" / "in.mkv", interrupted)
        assert signal.getsignal(getattr(signal, kind)) is signal.SIG_DFL
    finally:
        signal.signal(getattr(signal, kind), inherited)
    assert ended.value.code == 128 + getattr(signal, kind) and len(begun) == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_a_name_is_given_when_the_bytes_are_on_the_disk(tmp_path, monkeypatch):
    source, happened = write_film(tmp_path / "in.mp4", count=3), []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (happened.append("sync"), sync(number))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("name"), rename(a, b))[1])
    rewrite_video(source, tmp_path / "out.mp4", lambda frames: frames)
    assert happened[:2] == ["sync", "name"]
