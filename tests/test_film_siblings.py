"""Other films of the kinds that were once refused late or lost something: sound in AVI, cut recordings, gaps."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from jores.files.clips import rewrite_video
from tests.films import LENGTH, QUIET, frames_of, join, packets_of, write_film
from tests.rich_films import FILMS

AAC = ("aac", {"language": "eng"}, 1)


def rewritten(source, suffix=None):
    target = source.with_name(f"out{suffix or source.suffix}")
    report = rewrite_video(source, target, lambda frames: frames)
    return report, target


def assert_same_film(source, target):
    (before, seen), (after, made) = frames_of(source), frames_of(target)
    assert len(after) == len(before)
    assert np.subtract(after, after[0]) == pytest.approx(np.subtract(before, before[0]), abs=3e-3)
    assert max(abs(a.mean() - b.mean()) for a, b in zip(seen, made, strict=True)) < 1.5


@pytest.mark.parametrize("codec", ["ac3", "aac", "mp2", "adpcm_ima_wav"])
@pytest.mark.parametrize("again", [False, True])
def test_sound_in_avi_keeps_its_times(tmp_path, codec, again):
    """AC-3 and AAC were counted in bytes: the sound of a film played in a fifth of its time."""
    source = write_film(tmp_path / "in.avi", "mpeg4", audio=[(codec, {}, 0)])
    report, target = rewritten(source)
    if again:
        source.write_bytes(target.read_bytes())
        report, target = rewritten(source)
    (before, data), (after, copied) = (zip(*packets_of(path, "audio"), strict=True) for path in (source, target))
    assert report.left_out == () and data == copied
    assert after == pytest.approx(before, abs=4e-3)


CUTS = [("libx264", {"bf": "2", "g": "6"}), ("mpeg2video", {"bf": "2", "g": "6"}), ("libx265", {**QUIET, "g": "6"})]


@pytest.mark.parametrize(("codec", "options"), CUTS, ids=[c[0] for c in CUTS])
@pytest.mark.parametrize("cut", [3 * 188, 20 * 188 + 77])
def test_recordings_that_begin_and_end_anywhere(tmp_path, codec, options, cut):
    """As a receiver leaves them, also joined: what has no start cannot be decoded, the rest is kept."""
    whole = write_film(tmp_path / "whole.ts", codec, options=options, count=30, audio=[AAC])
    data = whole.read_bytes()
    late, short = tmp_path / "late.ts", tmp_path / "short.ts"
    late.write_bytes(data[cut:])
    short.write_bytes(data[: len(data) * 2 // 3 + 50])
    for source in (late, short, join(tmp_path / "joined.ts", short, whole)):
        report, target = rewritten(source)
        times = frames_of(target)[0]
        assert report.frames == len(times) == len(frames_of(source)[0]) >= 12 and (np.diff(times) > 0).all()
        assert report.left_out == ()


GAPS = [0, 1, 2, 6, 7, 8, 9, 15, 16, 17, 18, 30]


@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("mjpeg", "yuvj420p"), ("mpeg4", "yuv420p"), ("huffyuv", "yuv422p"), ("rawvideo", "bgr24")]
)
def test_frames_that_a_capture_dropped_leave_their_gaps_in_avi(tmp_path, codec, pix_fmt):
    source = write_film(tmp_path / "in.avi", codec, pix_fmt, times=GAPS)
    assert_same_film(source, rewritten(source)[1])


OTHERS = {
    "mpeg1 in mkv": (".mkv", "mpeg1video", {"options": {"bf": "2"}}),
    "mpeg1 in mov": (".mov", "mpeg1video", {"options": {"bf": "2"}}),
    "mpeg4 in ts": (".ts", "mpeg4", {"options": {"bf": "2"}}),
    "fragments": (".mp4", "libx264", {"muxer": {"movflags": "frag_keyframe+empty_moov"}, "audio": [AAC]}),
    "one a second": (".mkv", "libx264", {"rate": 1, "count": 4}),
    "240 a second": (".mp4", "libx264", {"rate": 240, "count": 20}),
    "ever slower": (".mkv", "libx264", {"times": [i * i * 3 for i in range(12)], "tick": Fraction(1, 1000)}),
    "dnxhr": (".mov", "dnxhd", {"pix_fmt": "yuv422p10le", "options": {"profile": "dnxhr_hqx"}, "size": (128, 256)}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_clocks_and_containers(tmp_path, kind):
    suffix, codec, more = OTHERS[kind]
    source = write_film(tmp_path / f"in{suffix}", codec, **({"count": 6} | more if "times" not in more else more))
    report, target = rewritten(source)
    assert report.left_out == ()
    assert_same_film(source, target)


@pytest.mark.parametrize(("suffix", "target"), [(".avi", ".mkv"), (".ts", ".mp4"), (".mkv", ".avi"), (".ts", ".avi")])
def test_times_survive_another_container(tmp_path, suffix, target):
    source = write_film(tmp_path / f"in{suffix}", options={"bf": "3"}, audio=[("ac3", {}, 0)])
    report, made = rewritten(source, target)
    assert_same_film(source, made)
    before, after = ([d for _, d in packets_of(path, "audio")] for path in (source, made))
    assert before == after and not any("audio" in told for told in report.left_out)


@pytest.mark.skipif(sys.platform == "win32", reason="no name can hold a colon there")
@pytest.mark.parametrize("target", [".mkv", ".mp4", ".avi"])
@pytest.mark.parametrize("kind", ["mkv", "mp4", "avi"])
def test_a_time_of_day_as_a_name(tmp_path, monkeypatch, kind, target):
    """Before: 12:30.mp4 in the current folder was the address of a protocol."""
    monkeypatch.chdir(tmp_path)
    film = FILMS[kind] if kind != "avi" else {**FILMS[kind], "audio": [("ac3", {}, 0)]}
    source = write_film(tmp_path / f"film.{kind}", **film)
    plain, named = tmp_path / f"plain{target}", Path("in:out") / f"14:00{target}"
    named.parent.mkdir()

    def seen_twice(pictures):
        assert len(list(pictures.again)) == LENGTH
        return pictures

    wanted = rewrite_video(source, plain, seen_twice)
    source.rename(f"12:30.{kind}")
    assert rewrite_video(Path(f"12:30.{kind}"), named, seen_twice) == wanted
    assert packets_of(named.absolute(), "audio") == packets_of(plain, "audio")
    assert [p.name for p in named.parent.iterdir()] == [named.name]
