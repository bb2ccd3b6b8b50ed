"""XMP of a result promises no film and no gain map: those parts of the file are left out, and are named."""

from __future__ import annotations

import io
import struct
import time
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from jores.files import jpeg, xmp
from jores.files.pictures import read_image, write_image
from tests.files_by_hand import levels, tags_of, written_again

SPACES = {
    "x": "adobe:ns:meta/", "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "xmp": "http://ns.adobe.com/xap/1.0/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/", "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "Container": "http://ns.google.com/photos/1.0/container/", "dc": "http://purl.org/dc/elements/1.1/",
    "Item": "http://ns.google.com/photos/1.0/container/item/", "Apple": "http://ns.apple.com/HDRGainMap/1.0/",
}  # fmt: skip
DIRECTORY = """<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="video/mp4"
 Item:Semantic="MotionPhoto" Item:Length="3304"/></rdf:li></rdf:Seq></Container:Directory>"""
ATTRIBUTES = """ GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion='1' GCamera:MotionPhotoPresentationTimestampUs = "5"
 GCamera:MicroVideo="1" GCamera:MicroVideoOffset="3304" hdrgm:Version="1.0" hdrgm:GainMapMax='1 > 0' """
ELEMENTS = """<GCamera:MotionPhoto>1</GCamera:MotionPhoto><GCamera:MicroVideoOffset rdf:parseType='x>y'>33
</GCamera:MicroVideoOffset><hdrgm:Version/><hdrgm:GainMapMin><rdf:Seq><rdf:li>1</rdf:li><rdf:li/></rdf:Seq>
</hdrgm:GainMapMin><hdrgm:OffsetSDR rdf:resource="a/b" /><Apple:HDRGainMapVersion>6</Apple:HDRGainMapVersion>"""
KEPT = ' xmp:Rating="5" GCamera:BurstID="b7"'
TITLE = "<dc:title>MotionPhoto hdrgm:Version</dc:title>"
WORDS = (
    b"Photo=",
    b"Photo>",
    b"MicroVideo",
    b"hdrgm:Version=",
    b"GainMapM",
    b"OffsetSDR",
    b"Directory",
    b"3304",
    b"HDRGainMapV",
)


def packet(attributes: str = "", elements: str = "", prefixes: dict[str, str] | None = None) -> bytes:
    names = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in SPACES.items())
    text = (
        f"<x:xmpmeta{names}><rdf:RDF><rdf:Description{KEPT}{attributes}>{TITLE}{elements}"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    for prefix, other in (prefixes or {}).items():
        text = text.replace(f"{prefix}:", f"{other}:").replace(f"xmlns:{prefix}=", f"xmlns:{other}=")
    return text.encode()


PACKETS = {
    "attributes": packet(ATTRIBUTES), "elements": packet("", ELEMENTS), "directory": packet("", DIRECTORY),
    "all": packet(ATTRIBUTES, ELEMENTS + DIRECTORY),
    "other prefixes": packet(ATTRIBUTES, DIRECTORY, {"GCamera": "Camera", "Container": "GContainer", "hdrgm": "ns-1"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PACKETS)
def test_promises_go_and_the_rest_stays(name):
    found = xmp.upright(PACKETS[name], (4, 3))
    assert not any(word in found for word in WORDS) and b"GainMapMax" not in found
    assert b'xmp:Rating="5"' in found and b':BurstID="b7"' in found and TITLE.split(" ")[0].encode() in found
    description = ElementTree.fromstring(found)[0][0]  # still XML
    assert len(description) == 1 and len(description.attrib) == 2


def test_a_packet_without_promises_stays():
    plain = packet("", "<dc:source>Camera:MotionPhoto hdrgm</dc:source>")
    for space in ("hdrgm", "Container", "Apple"):  # declared, and not used
        plain = plain.replace(f' xmlns:{space}="{SPACES[space]}"'.encode(), b"")
    plain = plain.replace(b" hdrgm:Version<", b"<")
    assert xmp.upright(plain, (4, 3)) == plain
    found = xmp.upright(packet(), (4, 3))
    assert b"HDRGainMap" not in found and ElementTree.fromstring(found) is not None


def test_the_time_of_a_packet_grows_with_its_length_and_not_with_the_square_of_it():
    def seconds(count):
        long = packet(ATTRIBUTES, "<GCamera:MotionPhoto " * count + "<hdrgm:x a='" * count)

        def once():
            start = time.process_time()
            xmp.upright(long, (4, 3))
            return time.process_time() - start

        return min(once() for _ in range(5))

    assert seconds(16 * 1500) < 64 * seconds(1500)  # with the square: 256 times


def test_a_motion_photo(tmp_path):
    path, body = tmp_path / "a.jpg", io.BytesIO()
    Image.fromarray(levels()).save(body, "JPEG")
    film = bytes((0, 0, 0, 24)) + b"ftypmp42" + bytes(200)
    told = PACKETS["all"].replace(b"hdrgm:Version</dc", b"</dc")
    path.write_bytes(jpeg.with_segments(body.getvalue(), b"", told, []) + body.getvalue() + film)
    data = written_again(path).read_bytes()
    found = jpeg.xmp_of(list(jpeg.segments(data)))
    assert found is not None and b"Rating" in found and not any(word in data for word in (*WORDS, b"ftyp"))
    gain_map, motion = read_image(path).metadata.left_out
    assert "gain map" in gain_map and "motion photo" in motion
    assert not read_image(written_again(path)).metadata.left_out


@pytest.mark.parametrize("name", ["a.heic", "a.avif"])
def test_a_motion_photo_of_other_kinds(tmp_path, name):
    path, image = tmp_path / name, Image.fromarray(levels())
    if name == "a.heic":
        pytest.importorskip("pillow_heif").from_pillow(image).save(path, xmp=PACKETS["all"])
    else:
        image.save(path, xmp=PACKETS["all"])
    path.write_bytes(path.read_bytes() + struct.pack(">I4s", 108, b"mpvd") + bytes(100))
    picture = read_image(path)
    assert picture.metadata.left_out == ("the film behind the picture (a motion photo)",)
    write_image(tmp_path / "b.tif", picture)
    found = tags_of((tmp_path / "b.tif").read_bytes())[700][1]
    assert b"Rating" in found and not any(word in found for word in WORDS)
