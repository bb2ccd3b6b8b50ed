"""Transport streams: the size of their packets, the number and names of their services, several programs."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import av
import pytest

from jores.files import transport
from jores.files.clips import rewrite_video
from tests.films import frames_of, packets_of, write_film

AAC = ("aac", {"language": "eng"}, 1)
NAMES = {"service_name": "Garage", "service_provider": "Zoë"}


def rewritten(source: Path, suffix: str | None = None) -> tuple[tuple[str, ...], Path]:
    target = source.with_name(f"out{suffix or source.suffix}")
    return rewrite_video(source, target, lambda frames: frames).left_out, target


@pytest.mark.parametrize("suffix", [".m2ts", ".mts"])
@pytest.mark.parametrize(("wide", "size"), [("1", 192), ("0", 188)])
def test_packets_keep_their_size(tmp_path, suffix, wide, size):
    """Camcorders write four bytes before each packet; players of discs take no others."""
    path = write_film(tmp_path / "in.ts", audio=[AAC], muxer={"mpegts_m2ts_mode": wide})
    source = path.rename(tmp_path / f"in{suffix}")
    told, target = rewritten(source)
    for file in (source, target):
        assert set(file.read_bytes()[size - 188 :: size]) == {0x47} and file.stat().st_size % size == 0
    assert told == () and len(frames_of(target)[0]) == len(frames_of(source)[0])
    before, after = (packets_of(file, "audio") for file in (source, target))
    assert [data for _, data in before] == [data for _, data in after]


@pytest.mark.parametrize("names", [NAMES, {"service_name": "x" * 120, "service_provider": "y" * 120}])
def test_the_service_keeps_its_names_and_number(tmp_path, names):
    """Long names take several packets."""
    source = write_film(tmp_path / "in.ts", audio=[AAC], words=names, muxer={"mpegts_service_id": "700"})
    told, target = rewritten(source)
    wanted = transport.Service(700, names["service_provider"], names["service_name"])
    assert told == () and transport.services(source) == transport.services(target) == [wanted]
    assert transport.programs(target) == {700}
    told, _ = rewritten(source, ".mkv")
    assert told == (f"the name of the service, {names['service_name']}",)


def test_names_in_other_alphabets_are_told(tmp_path):
    """No muxer of FFmpeg writes them as they are."""
    source = write_film(tmp_path / "in.ts", words={"service_name": "Gerege", "service_provider": "Zoom"})
    marked = _resealed(source.read_bytes(), 0x11, lambda table: table.replace(b"Gerege", b"\x01\xb4\xd0\xe0\xd0\xd6"))
    source.write_bytes(marked)
    told, target = rewritten(source)
    assert len(told) == 1 and told[0].startswith("the name of the service") and transport.services(target) == []


def test_several_programs_are_told(tmp_path):
    one, two = (_program(tmp_path, number, name) for number, name in enumerate(("Front", "Rear")))
    both = struct.pack(">HHHH", 1, 0xF000, 2, 0xF001)
    packets = [_split(_resealed(p.read_bytes(), 0, lambda table: table[:8] + both)) for p in (one, two)]
    source = tmp_path / "in.ts"
    source.write_bytes(b"".join(itertools.chain(*itertools.zip_longest(*packets, fillvalue=b""))))
    with av.open(str(source)) as reader:
        assert [s.type for s in reader.streams] == ["video", "audio", "video", "audio"]
    for suffix in (".ts", ".mkv"):
        assert rewritten(source, suffix)[0] == ("the division into 2 programs (Front, Rear)",)


def test_programs_of_which_nothing_was_recorded_are_none(tmp_path):
    source = write_film(tmp_path / "in.ts", words=NAMES)
    more = struct.pack(">HHHH", 0, 0xE010, 9, 0xE999)
    source.write_bytes(_resealed(source.read_bytes(), 0, lambda table: table + more))
    assert transport.programs(source) == {1} and rewritten(source)[0] == ()


@pytest.mark.parametrize("place", range(4, 60, 5))
def test_damaged_tables_are_passed_over(tmp_path, place):
    source = write_film(tmp_path / "in.ts", words=NAMES)
    packets = _split(source.read_bytes())
    for number, packet in enumerate(packets):
        if struct.unpack(">H", packet[1:3])[0] & 0x1FFF in (0, 0x11):
            packets[number] = packet[:place] + bytes([packet[place] ^ 0x91]) + packet[place + 1 :]
    source.write_bytes(b"".join(packets))
    assert all(service[1:] == ("Zoë", "Garage") for service in transport.services(source))


def _program(folder: Path, number: int, name: str) -> Path:
    places = {"mpegts_pmt_start_pid": str(0x1000 + number), "mpegts_start_pid": str(256 + 16 * number)}
    muxer = {"mpegts_service_id": str(number + 1), **places}
    return write_film(folder / f"{name}.ts", audio=[AAC], words={"service_name": name}, muxer=muxer)


def _split(data: bytes) -> list[bytes]:
    return [data[at : at + 188] for at in range(0, len(data), 188)]


def _resealed(data: bytes, identifier: int, change) -> bytes:
    """A transport stream with changed tables in the packets of an identifier, of one packet each."""
    packets = _split(data)
    for number, packet in enumerate(packets):
        if struct.unpack(">H", packet[1:3])[0] & 0x1FFF == identifier:
            length = struct.unpack(">H", packet[6:8])[0] & 0xFFF
            table = change(packet[5 : 8 + length - 4])
            table = table[:1] + struct.pack(">H", 0xB000 | (len(table) + 4 - 3)) + table[3:]
            table += struct.pack(">I", transport._checksum(table))
            packets[number] = (packet[:5] + table).ljust(188, b"\xff")
    return b"".join(packets)
