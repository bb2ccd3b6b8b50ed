"""What a picture's file says besides its pixels comes back, and what a format cannot hold is said before the work."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin

from jores.checkpoint import save_bundle
from jores.cli import main
from jores.files import exif, jpeg, png
from jores.files.pictures import Picture, check_fits, read_image, write_image
from tests.files_by_hand import SIZE, levels, png_of, written_again
from tests.tiny import TINY, shaken

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" exif:PixelXDimension="20">'
    b"<tiff:ImageLength>12</tiff:ImageLength><dc:title>night</dc:title></rdf:Description></x:xmpmeta>"
)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_bundle(path, shaken(TINY))
    return ["--weights", str(path), "--segmenter", "none", "--device", "cpu", "--steps", "1"]


def image(channels: int = 3) -> Image.Image:
    return Image.fromarray(levels(channels).squeeze())


def camera(orientation: int = 1, note: bytes = b"") -> Image.Exif:
    block = Image.Exif()
    block[ExifTags.Base.Make], block[ExifTags.Base.Orientation] = "Camera", orientation
    block[ExifTags.Base.ImageWidth], block[ExifTags.Base.ImageLength] = SIZE[1], SIZE[0]
    inner = block.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = SIZE[1], SIZE[0]
    if note:
        inner[ExifTags.Base.MakerNote] = note
    return block


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".tif"])
def test_sizes_follow_the_turn_everywhere(tmp_path, orientation, suffix):
    path = tmp_path / f"a{suffix}"
    options = {"exif": camera(orientation)}
    if suffix == ".tif":
        options = {"tiffinfo": TIFF_TAGS | {274: orientation}}
    elif suffix == ".png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    else:
        options["xmp"] = XMP
    image().save(path, **options)
    with Image.open(written_again(path)) as again:
        width, height = again.size
        assert (width, height) == (SIZE if orientation > 4 else SIZE[::-1])
        packet = again.info.get("xmp") or again.info.get("XML:com.adobe.xmp", "").encode() or again.tag_v2[700]
        block = again.getexif()
        assert block.get(ExifTags.Base.Orientation, 1) == 1
        if suffix != ".tif":
            inner = block.get_ifd(ExifTags.IFD.Exif)
            assert (inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight]) == (width, height)
            assert (block[ExifTags.Base.ImageWidth], block[ExifTags.Base.ImageLength]) == (width, height)
    told = (f'tiff:Orientation="1" exif:PixelXDimension="{width}"', f"<tiff:ImageLength>{height}<", "night")
    assert all(text.encode() in packet for text in told)


TIFF_TAGS = {700: XMP, 271: "Camera", 282: 300.0, 283: 150.0, 296: 2, 269: "document"}


@pytest.mark.parametrize("room", [65470, 65533 - 6, 90_000, 200_000])
def test_exif_of_any_size_comes_back(tmp_path, room):
    note = np.random.default_rng(0).integers(0, 256, room - 120, dtype=np.uint8).tobytes()
    buffer = io.BytesIO()
    image().save(buffer, "JPEG", quality=95)
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg.with_segments(buffer.getvalue(), camera(6, note).tobytes(), b"", []))
    with Image.open(written_again(path)) as again:
        assert again.size == SIZE
        inner = again.getexif().get_ifd(ExifTags.IFD.Exif)
        assert inner[ExifTags.Base.MakerNote] == note and inner[ExifTags.Base.ExifImageWidth] == SIZE[0]


@pytest.mark.parametrize("order", "<>")
def test_exif_changes_in_place_and_loses_only_its_thumbnail(order):
    """Everything else stays at its offset: maker notes point into the block."""
    entries = [(0x010F, 2, 4, b"Cam\0"), (0x0112, 3, 1, struct.pack(order + "HH", 6, 0))]
    start = b"II*\0" if order == "<" else b"MM\0*"
    first = struct.pack(order + "H", 2) + b"".join(struct.pack(order + "HHI", *e[:3]) + e[3] for e in entries)
    behind = 8 + len(first) + 4
    second = struct.pack(order + "H", 2) + struct.pack(order + "HHII", 0x0201, 4, 1, behind + 30)
    second += struct.pack(order + "HHII", 0x0202, 4, 1, 9) + bytes(4)
    whole = start + struct.pack(order + "I", 8) + first + struct.pack(order + "I", behind) + second
    whole += b"THUMBNAIL"
    found = exif.upright(exif.PREFIX + whole, (5, 7), True)[6:]
    assert b"THUMBNAIL" not in found and len(found) == len(whole) - 9
    assert found[:8] == whole[:8] and found[22:30] == whole[22:30]
    assert struct.unpack_from(order + "H", found, 8 + 2 + 12 + 8) == (1,)
    for cut in range(8, len(whole) - 9, 3):
        with pytest.raises(ValueError, match="damaged"):
            exif.upright(exif.PREFIX + whole[: min(cut, 30)], (5, 7), True)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("size", [10, 3 << 20])
@pytest.mark.parametrize("bits", [8, 16])
def test_texts_of_a_png_come_back_whatever_their_size(tmp_path, kind, size, bits):
    text = (b'{"nodes": [1, 2, 3]}' * (size // 20 + 1))[:size]
    packed = zlib.compress(text)
    body = {b"tEXt": b"workflow\0" + text, b"zTXt": b"workflow\0\0" + packed,
            b"iTXt": b"workflow\0\1\0\0\0" + packed}[kind]  # fmt: skip
    path = tmp_path / "a.png"
    path.write_bytes(png_of(levels(3, bits), (kind, body)))
    again = written_again(path).read_bytes()
    assert (kind, body) in list(png.chunks(again))
    assert read_image(path).pixels.equal(read_image(written_again(path)).pixels)


def test_a_colour_profile_of_over_a_megabyte(tmp_path):
    profile = bytearray(np.random.default_rng(0).integers(0, 256, 3 << 20, dtype=np.uint8).tobytes())
    profile[16:20] = b"RGB "
    path = tmp_path / "a.png"
    path.write_bytes(png_of(levels(), (b"iCCP", b"big\0\0" + zlib.compress(bytes(profile)))))
    assert read_image(path).icc_profile == bytes(profile)
    assert png.profile_of(list(png.chunks(written_again(path).read_bytes()))) == bytes(profile)


@pytest.mark.parametrize("dpi", [(300, 300), (72, 144), (240, 96)])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".jfif"])
def test_the_resolution_comes_back(tmp_path, dpi, suffix):
    path = tmp_path / f"a{suffix}"
    image().save(path, {".jfif": "JPEG"}.get(suffix), dpi=dpi)
    with Image.open(written_again(path)) as again:
        assert tuple(map(round, map(float, again.info["dpi"]))) == dpi


@pytest.mark.parametrize("bits", [8, 16])
def test_one_resolution_in_a_png(tmp_path, bits):
    path = tmp_path / "a.png"
    turned = (b"eXIf", camera(6).tobytes()[6:])
    path.write_bytes(png_of(levels(3, bits), (b"pHYs", struct.pack(">IIB", 100, 300, 1)), turned))
    found = [body for name, body in png.chunks(written_again(path).read_bytes()) if name == b"pHYs"]
    assert found == [struct.pack(">IIB", 300, 100, 1)]  # the picture was turned


def test_comments_and_captions_of_a_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    image().save(path, comment=b"hello", quality=90)
    data = path.read_bytes()
    iptc = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x04city"
    long_xmp = jpeg.LONG_XMP + b"x" * 300
    path.write_bytes(jpeg.with_segments(data, b"", XMP, [(0xED, iptc), (0xE1, long_xmp)]))
    found = list(jpeg.segments(written_again(path).read_bytes()))
    assert {(0xED, iptc), (0xE1, long_xmp), (0xFE, b"hello")} <= set(found)
    assert sum(body.startswith(jpeg.XMP) for _, body in found) == 1


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("exif_too", [False, True])
def test_a_lossless_webp_stays_lossless(tmp_path, alpha, exif_too):
    path = tmp_path / "a.webp"
    extra = {"exif": camera().tobytes(), "xmp": XMP} if exif_too else {}
    image(4 if alpha else 3).save(path, lossless=True, exact=True, **extra)
    assert read_image(written_again(path)).pixels.equal(read_image(path).pixels)
    image().save(path, quality=60)
    write_image(tmp_path / "b.webp", read_image(path))
    assert not read_image(tmp_path / "b.webp").metadata.lossless


def test_transparency_of_a_bmp(tmp_path):
    path = tmp_path / "a.bmp"
    write_image(path, Picture(torch.from_numpy(levels(4).astype(np.float32) / 255).permute(2, 0, 1)))
    with Image.open(path) as found:
        assert found.mode == "RGBA" and np.array_equal(np.asarray(found), levels(4))
    assert read_image(written_again(path)).pixels.equal(read_image(path).pixels)


@pytest.mark.parametrize("name", ["a.jfif", "b.JPE", "c.dib"])
def test_other_names_of_the_same_formats(tmp_path, name, options):
    image().save(tmp_path / name, "BMP" if name == "c.dib" else "JPEG")
    assert main(["enhance", str(tmp_path), "--output", str(tmp_path / "out"), *options]) == 0
    assert (tmp_path / "out" / name).is_file()


@pytest.mark.parametrize("case", ["alpha", "deep", "workflow", "exif"])
def test_what_a_format_cannot_hold_is_said_before_the_work(tmp_path, options, capsys, monkeypatch, case):
    name, data, word = {
        "alpha": ("a.jpg", png_of(levels(4)), "transparency"),
        "deep": ("a.webp", png_of(levels(3, 16)), "16 bits"),
        "workflow": ("a.jpg", png_of(levels(), (b"tEXt", b"workflow\0{}")), "workflow"),
        "exif": ("a.bmp", png_of(levels(), (b"eXIf", camera().tobytes()[6:])), "EXIF"),
    }[case]
    (tmp_path / name).write_bytes(data)
    monkeypatch.setattr("jores.commands.enhancer.Enhancer.__call__", lambda *_: pytest.fail("the work was begun"))
    assert main(["enhance", str(tmp_path / name), "--output", str(tmp_path / "out"), *options]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert name in error and word in error and "PNG by its content" in error


def test_a_wrong_suffix_that_loses_nothing_is_no_fault(tmp_path):
    (tmp_path / "a.jpg").write_bytes(png_of(levels()))
    check_fits(tmp_path / "a.jpg", read_image(tmp_path / "a.jpg"))
    image().save(tmp_path / "b.png", "JPEG", dpi=(300, 300), exif=camera(), xmp=XMP)
    with Image.open(written_again(tmp_path / "b.png")) as again:
        assert again.format == "PNG" and round(again.info["dpi"][0]) == 300 and again.getexif()[271] == "Camera"
        assert b"night" in again.info["xmp"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_strip_metadata_leaves_only_the_colours(tmp_path, options, suffix):
    path = tmp_path / f"a{suffix}"
    icc = bytes(16) + b"RGB " + bytes(108)
    block = camera()
    block.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    if suffix == ".png":
        secret = (b"tEXt", b"workflow\0secret"), (b"gAMA", struct.pack(">I", 100_000)), (b"eXIf", block.tobytes()[6:])
        path.write_bytes(png_of(levels(), *secret, png.xmp_chunk(XMP)))
    elif suffix == ".tif":
        image().save(path, tiffinfo=TIFF_TAGS, icc_profile=icc)
    else:
        image().save(path, exif=block, xmp=XMP, icc_profile=icc, dpi=(300, 300), comment=b"secret")
    command = ["enhance", str(path), "--output", str(tmp_path / "out"), *options]
    assert main(command) == 0
    kept = (tmp_path / "out" / path.name).read_bytes()
    assert b"Camera" in kept and b"night" in kept
    assert main([*command, "--strip-metadata", "--overwrite"]) == 0
    data = (tmp_path / "out" / path.name).read_bytes()
    assert not any(word in data for word in (b"Camera", b"night", b"secret", b"xmpmeta", b"Exif\0\0", b"eXIf"))
    found = read_image(tmp_path / "out" / path.name)
    assert found.metadata.power == 1.0 if suffix == ".png" else found.icc_profile == icc


@pytest.mark.parametrize("names", [["b.mp4"], ["b.MOV", "a.mkv"], ["c.avi", "a.ts", "b.webm"]])
def test_strip_metadata_is_refused_for_films_before_any_work(tmp_path, options, names, capsys):
    paths = [tmp_path / name for name in ("a.png", *names)]
    image().save(paths[0])
    for path in paths[1:]:
        path.write_bytes(b"film")
    command = ["enhance", *map(str, paths), "--output", str(tmp_path / "out"), "--strip-metadata", *options]
    assert main(command) != 0
    shown = capsys.readouterr()
    assert names[0] in shown.err and "--strip-metadata" in shown.err and not shown.out
    assert not (tmp_path / "out").exists()
