"""Tags come back byte for byte: texts in any encoding, captions of any type, and maker notes, which hold offsets."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from jores.files import exif, ifd
from jores.files.pictures import read_image, write_image
from tests.dng import write_dng
from tests.files_by_hand import exif_of, inner_tags_of, levels, photograph, png_of, tags_of

ARTIST, COPYRIGHT, DESCRIPTION, IPTC, LENS, NOTE = 315, 33432, 270, 33723, 0xA434, 0x927C
TEXTS = {ARTIST: "Jürgen Müller", COPYRIGHT: "© 2024 Müller", DESCRIPTION: "Hochzeit Zoë"}
CAPTIONS = b"\x1c\x02\x78\0\x0fWedding Zo\xc3\xab Al"  # 20 bytes, as many as five numbers of four


def texts(encoding: str) -> dict[int, tuple[int, bytes]]:
    return {tag: (2, text.encode(encoding) + b"\0") for tag, text in TEXTS.items()}


def lens(encoding: str) -> dict[int, tuple[int, bytes]]:
    return {LENS: (2, "Ü 50 mm".encode(encoding) + b"\0")}


def result_of(path: Path) -> bytes:
    target = path.with_name("out.tif")
    write_image(target, read_image(path))
    return target.read_bytes()


def kept(found: dict[int, tuple[int, bytes, int]], wanted: dict[int, tuple[int, bytes]]) -> bool:
    return {tag: found[tag][:2] for tag in wanted if tag in found} == wanted


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", [1, 4, 7])
def test_texts_and_captions_of_a_tiff(tmp_path, bits, order, encoding, kind):
    """Before: ?? in place of letters that ASCII lacks, and captions of type LONG became one number."""
    wanted = texts(encoding) | {IPTC: (kind, CAPTIONS)}
    (tmp_path / "a.tif").write_bytes(photograph(order, bits, wanted, lens(encoding)))
    data = result_of(tmp_path / "a.tif")
    assert kept(tags_of(data), wanted) and kept(inner_tags_of(data), lens(encoding))
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), levels(3, bits))
    assert list(tags_of(data)) == sorted(tags_of(data))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", ["a.heic", "a.avif", "jpeg.tif"])
def test_texts_of_pictures_whose_result_is_another_tiff(tmp_path, name, order, encoding):
    tiles = {322: (4, struct.pack(order + "I", 512)), 323: (4, struct.pack(order + "I", 512))}  # as in a telephone's
    block, image, path = (
        exif_of(order, texts(encoding) | tiles, lens(encoding)),
        Image.fromarray(levels()),
        tmp_path / name,
    )
    if name == "a.heic":
        pytest.importorskip("pillow_heif").from_pillow(image).save(path, exif=exif.PREFIX + block)
    elif name == "a.avif" and not features.check("avif"):
        pytest.skip("this Pillow knows no AVIF")
    else:
        image.save(path, "AVIF" if name == "a.avif" else "JPEG", exif=exif.PREFIX + block)
    if name == "jpeg.tif":
        data = result_of(path)
        assert data[8 : len(block)] == block[8:]  # nothing has moved
    data = result_of(path)
    assert kept(tags_of(data), texts(encoding)) and kept(inner_tags_of(data), lens(encoding))
    assert not {322, 323} & set(tags_of(data))  # the result has strips
    assert tifffile.imread(tmp_path / "out.tif").shape == levels().shape


@pytest.mark.parametrize("order", "<>")
def test_texts_and_captions_of_camera_raw(tmp_path, order):
    pytest.importorskip("rawpy")
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><xmp:Rating>5</xmp:Rating></x:xmpmeta>'
    extra = [(tag, 7, len(data), data, True) for tag, (_, data) in texts("utf-8").items()]
    extra += [(IPTC, 7, len(CAPTIONS), CAPTIONS, True), (700, 1, len(packet), packet, True)]
    extra += [(50740, 7, 6, b"Adobe\0", True)]
    write_dng(tmp_path / "a.dng", 0.05, order=order, extra=tuple(extra))
    assert read_image(tmp_path / "a.dng").metadata.left_out == ("the file's tag 50740",)
    data = result_of(tmp_path / "a.dng")
    found = tags_of(data)
    assert all(found[tag][1] == text for tag, (_, text) in texts("utf-8").items())
    assert found[IPTC][1] == CAPTIONS and found[700][1] == packet and found[272][1] == b"Camera\0"


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("at", [3000, 30_001, 1 << 20])
def test_maker_notes_keep_their_offset(tmp_path, order, at):
    """Offsets in most of them count from the start of the file. Those far into it move: the result is no larger."""
    note = {NOTE: (7, bytes(range(200)))}
    (tmp_path / "a.tif").write_bytes(photograph(order, 8, texts("utf-8"), note | lens("utf-8"), at))
    data = result_of(tmp_path / "a.tif")
    found = inner_tags_of(data)
    assert kept(found, note | lens("utf-8")) and kept(tags_of(data), texts("utf-8"))
    assert found[NOTE][2] == at if at < 1 << 16 else len(data) < 1 << 16


@pytest.mark.parametrize("kind", [2, 7, 4])
def test_xmp_of_any_type_in_a_tiff(tmp_path, kind):
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>   "
    (tmp_path / "a.tif").write_bytes(photograph("<", 8, {700: (kind, packet)}))
    assert tags_of(result_of(tmp_path / "a.tif"))[700][:2] == (1, packet)


@pytest.mark.parametrize("order", "<>")
def test_a_damaged_block_keeps_what_can_be_read(tmp_path, order):
    """The EXIF table lies behind the end; the texts of the first one are whole."""
    block = exif_of(order, texts("latin-1") | {0x8769: (4, struct.pack(order + "I", 1 << 20))})
    buffer = io.BytesIO()
    Image.fromarray(levels()).save(buffer, "JPEG", exif=exif.PREFIX + block)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    found = read_image(tmp_path / "a.jpg").exif
    assert found is not None and kept(tags_of(found[6:]), texts("latin-1")) and 0x8769 not in tags_of(found[6:])


def test_damaged_tables_end_nothing(tmp_path):
    whole = photograph("<", 8, texts("utf-8"), lens("utf-8"))
    for cut in range(0, len(whole), 7):
        for data in (whole[:cut], whole[:cut] + b"\xff" * 8 + whole[cut + 8 :]):
            if data[:4] == b"II*\0" and len(data) >= 8:
                order, table = ifd.read(data)
                assert order == "<" and len(table) <= 70_000
                exif.rewritten(exif.of_tiff(data), (3, 4), True)


@pytest.mark.parametrize("count", [1, 2])
def test_two_descriptions_in_a_tiff_of_16_bits(tmp_path, count):
    """As tifffile writes them: a description of its user's, and one of its own. Before: refused."""
    options = {"description": "Ann & Bob"} if count == 2 else {}
    tifffile.imwrite(tmp_path / "a.tif", levels(3, 16), photometric="rgb", **options)
    data = result_of(tmp_path / "a.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), levels(3, 16))
    assert count == 1 or tags_of(data)[DESCRIPTION][1] == b"Ann & Bob\0"


def test_texts_of_a_png_from_before_it_had_a_chunk_for_them(tmp_path):
    """As ImageMagick wrote them: EXIF in hexadecimal digits."""
    block = exif.PREFIX + exif_of(">", texts("utf-8"), lens("utf-8"))
    text = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    (tmp_path / "a.png").write_bytes(png_of(levels(), (b"tEXt", b"Raw profile type exif\0" + text)))
    found = read_image(tmp_path / "a.png").exif
    assert found is not None and kept(tags_of(found[6:]), texts("utf-8"))
    assert kept(inner_tags_of(found[6:]), lens("utf-8"))
