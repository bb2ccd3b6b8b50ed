"""Damaged films: what can be read is worked on, and the report says what is missing; sound ones say nothing."""

from __future__ import annotations

import random
from fractions import Fraction

import av
import numpy as np
import pytest

from jores.files.clips import VideoFileError, rewrite_video
from tests.films import RATE, frames_of, write_film
from tests.matroska import laced

COUNT = 125
KINDS = [(".mkv", "libx264"), (".webm", "libvpx-vp9"), (".avi", "mpeg4"), (".mp4", "libx264"), (".mov", "libx264")]
AAC = ("aac", {}, 1)


def film(path, encoder, **more):
    muxer = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    muxer |= {"cluster_time_limit": "1000"} if path.suffix in (".mkv", ".webm") else {}
    return write_film(path, encoder, options={"g": "25"}, **({"count": COUNT, "muxer": muxer} | more))


def report_of(path):
    target = path.with_name(f"out{path.suffix}")
    report = rewrite_video(path, target, lambda frames: frames)
    times = frames_of(target)[0]
    assert len(times) == report.frames and (np.diff(times) > 0).all()
    return report, times


def holed(path, *shares, length=25):
    """Random bytes in place of 1 / `length` of the file, at these shares of it."""
    data = bytearray(path.read_bytes())
    for share in shares:
        first, count = int(len(data) * share), len(data) // length
        data[first : first + count] = random.Random(1).randbytes(count)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("suffix", "encoder"), KINDS)
@pytest.mark.parametrize("share", [0.5, 0.93])
def test_a_film_that_ends_early_says_where(tmp_path, suffix, encoder, share):
    source = film(tmp_path / f"in{suffix}", encoder, audio=[AAC] if suffix == ".mkv" else [])
    if suffix == ".avi":  # its head is long, and its index comes last
        share = 0.6 if share < 0.9 else 0.8
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    report, times = report_of(source)
    end = times[-1] - times[0] + 1 / RATE
    assert report.frames < COUNT - 5
    told = [line for line in report.left_out if "ends at" in line]
    assert told == [f"damaged: {report.frames} frames, it ends at {end:.1f} s of {COUNT / RATE:.1f} s"]


@pytest.mark.parametrize(("suffix", "encoder"), [*KINDS, (".ts", "libx264")])
def test_a_hole_in_a_film_is_told(tmp_path, suffix, encoder):
    """H.264 in Matroska, MP4 and MOV ended in an error that blamed the target, the others came back shorter."""
    source = holed(film(tmp_path / f"in{suffix}", encoder), 0.4 if suffix == ".ts" else 0.5)
    report, times = report_of(source)
    assert COUNT * 0.6 < report.frames < COUNT
    if suffix == ".avi":  # it has no times, so what is lost shows at the end
        assert any("ends at" in line for line in report.left_out)
        return
    lost = COUNT - report.frames
    gap = int(np.argmax(np.diff(times)))
    (told,) = report.left_out
    assert told.startswith("damaged: about ") and abs(int(told.split()[2]) - lost) <= 2
    start = times[gap]
    assert f"({start:.1f} " in told or f"({start + 1 / RATE:.1f} " in told


def test_both_passes_skip_the_same_packets(tmp_path):
    source, seen = holed(film(tmp_path / "in.mp4", "libx264"), 0.5), []

    def look(frames):
        for frame in frames:
            small = next(frames.again)
            seen.append((frame.mean() - small.mean()).abs().item())
            yield frame
        assert next(frames.again, None) is None

    report = rewrite_video(source, tmp_path / "out.mp4", look)
    assert len(seen) == report.frames < COUNT and max(seen) < 0.01


def test_a_film_that_is_mostly_unreadable_is_refused_with_the_place(tmp_path):
    source = holed(film(tmp_path / "in.mp4", "libx264"), 0.3, 0.5, 0.7, length=8)
    with pytest.raises(VideoFileError, match=r"in\.mp4: damaged, \d+ of its 125 frames cannot be read \(\d.*s\): get"):
        rewrite_video(source, tmp_path / "out.mp4", lambda frames: frames)
    assert not (tmp_path / "out.mp4").exists()


HELD = [*range(20), 40, 41, 90, 91, 92, 160]
SOUND = {
    "held last frame": (".mkv", {"times": HELD, "count": len(HELD), "audio": []}),
    "pauses": (".mp4", {"times": HELD, "count": len(HELD)}),
    "pauses, avi": (".avi", {"times": HELD, "count": len(HELD), "encoder": "mpeg4", "audio": [("mp2", {}, 0)]}),
    "late": (".mkv", {"start": 2.0, "count": 30}),
    "late, webm": (".webm", {"start": 2.0, "count": 30, "encoder": "libvpx-vp9", "audio": [("libopus", {}, 1)]}),
    "late, ts": (".ts", {"start": 2.0, "count": 30}),
    "slow": (".mkv", {"rate": 1, "count": 4}),
    "fine ticks": (".mov", {"times": [i * 1001 for i in range(30)], "tick": Fraction(1, 30000), "count": 30}),
}  # fmt: skip


@pytest.mark.parametrize("kind", SOUND)
@pytest.mark.parametrize("reordered", ["0", "3"])
def test_sound_films_say_nothing(tmp_path, kind, reordered):
    suffix, more = SOUND[kind]
    more = {"encoder": "libx264", "audio": [AAC]} | more
    if more["encoder"] != "libx264" and reordered != "0":
        pytest.skip("no frames out of order here")
    options = {"bf": reordered} if more["encoder"] == "libx264" else {}
    source = write_film(tmp_path / f"in{suffix}", options=options, **more)
    assert report_of(source)[0].left_out == ()


@pytest.mark.parametrize("count", [1, 8])
def test_several_packets_of_sound_in_one_block_are_no_damage(tmp_path, count):
    """mkvmerge writes most of them so; with a pause in the pictures they counted as bytes that belong to no packet."""
    options = {"count": len(HELD), "times": HELD, "muxer": {"cluster_time_limit": "1000"}}
    source = write_film(tmp_path / "plain.mkv", options={"bf": "0"}, audio=[("ac3", {}, 1)], **options)
    laced(source, tmp_path / "in.mkv", 2, count)
    with av.open(str(tmp_path / "in.mkv")) as reader:
        places = [packet.pos for packet in reader.demux(audio=0) if packet.size]
    assert len(places) >= count * len(set(places)) > 8
    assert report_of(tmp_path / "in.mkv")[0].left_out == ()


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuva420p"])
def test_alpha_of_webm_is_no_damage(tmp_path, pix_fmt):
    """It lies beside the packets in the file."""
    noise, options = np.random.default_rng(0), {"crf": "10", "b": "0", "auto-alt-ref": "0", "lag-in-frames": "0"}
    with av.open(str(tmp_path / "in.webm"), "w") as writer:
        video = writer.add_stream("libvpx-vp9", rate=RATE, options=options)
        video.width, video.height, video.pix_fmt = 96, 64, pix_fmt
        for time in HELD:
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (64, 96, 4), np.uint8), format="rgba")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, Fraction(1, RATE)
            writer.mux(video.encode(frame))
        writer.mux(video.encode(None))
    assert report_of(tmp_path / "in.webm")[0].left_out == ()


def test_sound_that_goes_on_longer_than_the_pictures_is_no_damage(tmp_path):
    """The container has the duration of the sound, and tracks have none of their own, as other writers leave them."""
    source = write_film(tmp_path / "in.mkv", options={"bf": "0"}, count=75, audio=[AAC])
    with av.open(str(source)) as reader, av.open(str(tmp_path / "short.mkv"), "w") as writer:
        copies = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.dts is not None and (packet.stream.type == "audio" or packet.pts * packet.time_base < 1):
                packet.stream = copies[packet.stream.index]
                writer.mux(packet)
    short = tmp_path / "short.mkv"
    assert report_of(short)[0].left_out == ()
    short.write_bytes(short.read_bytes().replace(b"DURATION", b"DURATIOM"))
    assert not any("damaged" in line for line in report_of(short)[0].left_out)
