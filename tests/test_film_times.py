"""Films whose time stamps are out of order, start again, leap, or are missing."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from jores.files.clips import rewrite_video
from jores.files.clock import FrameTimes, MonotonicTimes, Timeline, repair_times
from tests.films import LENGTH, QUIET, RATE, frames_of, join, packets_of, write_film

MP3 = ("libmp3lame", {}, 0)
AAC = ("aac", {"language": "eng"}, 1)


def rewritten(source, target):
    report = rewrite_video(source, target, lambda frames: frames)
    return report, *frames_of(target)


def chunks(path):
    with av.open(str(path)) as file:
        return [(p.dts, p.time_base) for p in file.demux(video=0) if p.size]


@pytest.mark.parametrize(
    ("encoder", "options"),
    [("libx264", {"bf": "3"}), ("libx264", {"bf": "16", "x264-params": "b-pyramid=normal"}), ("mpeg4", {"bf": "2"}),
     ("mpeg2video", {"bf": "2"}), ("mpeg1video", {"bf": "2"}), ("msmpeg4", {})],
)  # fmt: skip
def test_avi_that_stores_frames_out_of_order(tmp_path, encoder, options):
    """AVI has no time stamps but the order of decoding. Twice: what the pack wrote itself is read as well."""
    source = write_film(tmp_path / "in.avi", encoder, options=options, audio=[MP3])
    seen = frames_of(source)[1]
    for number in range(2):
        target = tmp_path / f"{number}.avi"
        report, times, frames = rewritten(source, target)
        assert report.frames == len(times) == LENGTH and report.left_out == ()
        assert chunks(target) == chunks(source) and (np.diff(times) > 0).all()
        assert [f.mean() for f in frames] == pytest.approx([f.mean() for f in seen], abs=1.5)
        assert packets_of(target, "audio") == packets_of(source, "audio")
        source = target


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "libx265"])
@pytest.mark.parametrize("second", [0, 7, 60])
def test_joined_transport_streams_are_laid_end_to_end(tmp_path, codec, second):
    """The second part begins at another time than the first one ended: before it, or long after."""
    options = QUIET if codec == "libx265" else {"bf": "2"}
    parts = [
        write_film(tmp_path / f"{i}.ts", codec, options=options, audio=[AAC], start=s)
        for i, s in enumerate((1, 1 + second, 1))
    ]
    source = join(tmp_path / "in.ts", *parts)
    report, times, frames = rewritten(source, tmp_path / "out.ts")
    assert report.frames == len(times) == 3 * LENGTH
    gaps = np.diff(times)
    # A part's sound may end later than its pictures; a pause below the threshold stays one.
    assert (gaps > 0).all() and (gaps < 0.2).sum() >= 3 * LENGTH - 1 - (second == 7)
    assert [f.mean() for f in frames[:LENGTH]] == pytest.approx([f.mean() for f in frames[-LENGTH:]], abs=1.5)
    sound, before = (packets_of(tmp_path / name, "audio") for name in ("out.ts", "in.ts"))
    assert [data for _, data in sound] == [data for _, data in before] and (np.diff([t for t, _ in sound]) > 0).all()
    for part in range(3):  # pictures and sound together, in every part
        offset = times[part * LENGTH] - sound[part * len(sound) // 3][0]
        assert offset == pytest.approx(times[0] - sound[0][0], abs=0.03)


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
@pytest.mark.parametrize("start", [0.5, 3])
def test_a_late_beginning_and_uneven_times_stay(tmp_path, suffix, start):
    uneven = [i * 40 + (i // 3) * 170 for i in range(LENGTH)]
    source = write_film(tmp_path / f"in{suffix}", times=uneven, tick=Fraction(1, 1000), start=start, audio=[AAC])
    _, times, _ = rewritten(source, tmp_path / f"out{suffix}")
    before = frames_of(source)[0]
    assert np.diff(times) == pytest.approx(np.diff(before), abs=2e-3)
    late = [frames_of(p)[0][0] - packets_of(p, "audio")[0][0] for p in (source, tmp_path / f"out{suffix}")]
    assert late[0] == pytest.approx(late[1], abs=2e-3)


def test_stamps_that_wrap_around(tmp_path):
    """A transport stream counts to 2^33 only, which is 26 and a half hours."""
    turn = 2**33 / 90000
    source = write_film(tmp_path / "in.ts", start=turn - 0.2 - 1.4, audio=[AAC])
    report, times, _ = rewritten(source, tmp_path / "out.ts")
    assert report.frames == LENGTH and np.diff(times) == pytest.approx(1 / RATE, abs=1e-3)


def test_missing_stamps_are_made_up():
    times = FrameTimes(step=40)
    assert [times.frame(pts) for pts in (None, None, 100, None, 120, 500)] == [0, 40, 100, 140, 141, 500]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_a_second_video_is_copied_with_its_order(tmp_path, suffix):
    source = write_film(tmp_path / f"in{suffix}", options={"bf": "3"}, second_video=True, audio=[AAC])
    target = tmp_path / f"out{suffix}"
    report = rewrite_video(source, target, lambda frames: frames)
    before, after = (packets_of(path, "video", 1) for path in (source, target))
    assert report.left_out == () and [d for _, d in before] == [d for _, d in after]
    assert [t - after[0][0] for t, _ in after] == pytest.approx([t - before[0][0] for t, _ in before], abs=2e-3)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_packets_shorter_than_the_tick_of_matroska_keep_their_times(tmp_path, suffix):
    """As those of TrueHD, 1200 a second with stamps in milliseconds: the sound came to end a fifth later."""
    plain, source = write_film(tmp_path / "a.mkv", options={"bf": "0"}, audio=[MP3], count=50), tmp_path / "in.mkv"
    with av.open(str(plain)) as reader, av.open(str(source), "w") as writer:
        copies = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        sound = 0
        for one in reader.demux():
            if one.dts is not None:
                if one.stream.type == "audio":
                    one.pts = one.dts = sound * 5 // 6
                    sound += 1
                one.stream = copies[one.stream.index]
                writer.mux(one)
    rewrite_video(source, tmp_path / f"out{suffix}", lambda frames: frames)
    (before, data), (after, copied) = (
        zip(*packets_of(path, "audio"), strict=True) for path in (source, tmp_path / f"out{suffix}")
    )
    assert data == copied and len(set(before)) < len(before) > 80
    assert np.subtract(after, after[0]) == pytest.approx(np.subtract(before, before[0]), abs=1e-3)


class Stream:
    def __init__(self, index, kind):
        self.index, self.type = index, kind


def packet(index: int, dts: int | None, pts: int | None, kind: str = "video"):
    made = av.Packet(b"x")
    made.time_base, made.dts, made.pts, made.duration = Fraction(1, 1000), dts, pts, 40
    return Wrapped(made, Stream(index, kind))


class Wrapped:
    """A real packet in a track that no file has."""

    def __init__(self, real, stream):
        self.__dict__.update(real=real, stream=stream, stream_index=stream.index)

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __setattr__(self, name, value):
        setattr(self.real, name, value)


def test_tracks_move_by_the_same_time_even_if_they_restart_one_after_the_other():
    timeline = Timeline("mpegts")
    stored = [(0, 1000), (1, 900), (0, 1040), (1, 940), (1, 500), (0, 1080), (0, 600), (1, 540)]
    packets = [packet(i, t, t, ("video", "audio")[i]) for i, t in stored]
    for one in packets:
        timeline(one)
    shifts = [p.dts - t for p, (_, t) in zip(packets, stored, strict=True)]
    assert shifts[:4] == [0, 0, 0, 0] and shifts[5] == 0  # the last of the first part comes late
    assert shifts[4] == shifts[6] == shifts[7] >= 500


def test_decoding_times_are_found_for_copies_and_mended_for_encoders():
    monotonic = MonotonicTimes()
    given = [packet(3, None, 0), packet(3, None, 120), packet(3, 0, 40), packet(3, 0, 80)]
    out = [p for one in given for p in monotonic(one)]
    assert [p.dts for p in out] == [-80, -40, 0, 1] and out[:3] == given[:3]
    broken = [packet(0, 7 * 10**9, 0), packet(0, -(10**10), 40), packet(0, 30, 80)]
    assert repair_times(broken, None) == 41 and [p.dts for p in broken] == [0, 40, 41]
