"""Codecs for what Pillow lacks: colour with 16 bits per channel (silently reduced to 8), and TIFFs that keep EXIF.

Pixels are uint8 or uint16 arrays (H, W, C) with C = 1 (grey), 3 (RGB), and 2 or 4 with straight alpha.
"""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from functools import partial

import numpy as np

from . import exif as exif_blocks
from . import ifd, png


def decode_16(data: bytes, codec: str, alpha: bool) -> np.ndarray:
    """Decode a PNG or a stripped TIFF with FFmpeg to uint16 (H, W, 3), or (H, W, 4) with `alpha`.

    Args:
        data: the complete file. The caller must rule out truncated files, because FFmpeg accepts them.
        codec: "png" or "tiff".

    Raises:
        ValueError: FFmpeg does not support this variant.
    """
    import av
    from av.video.codeccontext import VideoCodecContext

    decoder = av.CodecContext.create(codec, "r")
    if not isinstance(decoder, VideoCodecContext):
        raise ValueError(f"{codec} is no codec of pictures")
    try:
        frames = decoder.decode(av.Packet(data)) or decoder.decode(None)
    except av.FFmpegError as error:
        raise ValueError(
            f"a variant with 16 bits per channel that is not supported ({error}); save it as PNG"
        ) from error
    return frames[0].to_ndarray(format="rgba64be" if alpha else "rgb48be")


def encode_png_16(levels: np.ndarray, exif: bytes = b"", profile: bytes = b"") -> bytes:
    """PNG file of uint16 levels (H, W, C), with an EXIF block and a colour profile if they are not empty."""
    extra: list[png.Chunk] = []
    if profile:
        extra.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    if exif:
        extra.append((b"eXIf", exif.removeprefix(exif_blocks.PREFIX)))
    data = _grey_with_alpha(levels) if levels.shape[2] == 2 else _by_ffmpeg(levels)
    return data[:33] + png.encoded(extra) + data[33:]  # directly after the signature and IHDR


def _grey_with_alpha(levels: np.ndarray) -> bytes:
    """PNG file of uint16 levels (H, W, 2), for which PyAV has no pixel format."""
    height, width, _ = levels.shape
    rows = levels.astype(">u2").view(np.uint8).reshape(height, -1)
    rows = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))  # differs from the row above: filter 2
    rows = np.pad(rows, ((0, 0), (1, 0)), constant_values=2)
    header = struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")
    return png.SIGNATURE + png.encoded(parts)


def _by_ffmpeg(levels: np.ndarray) -> bytes:
    import av

    height, width, channels = levels.shape
    pixel_format = {1: "gray16be", 3: "rgb48be", 4: "rgba64be"}[channels]
    frame = av.VideoFrame.from_ndarray(levels[..., 0] if channels == 1 else levels, format=pixel_format)
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pixel_format
    encoder.time_base = encoder.sample_aspect_ratio = Fraction(1, 1)
    return b"".join(bytes(packet) for packet in encoder.encode(frame) + encoder.encode(None))


def encode_bmp_alpha(levels: np.ndarray, resolution: tuple[float, float] | None = None) -> bytes:
    """BMP file of uint8 levels (H, W, 4) with straight alpha.

    Masks in the header declare the alpha channel, which Pillow's BMPs do not. `resolution`: horizontal and vertical, in
    dots per inch.
    """
    height, width, _ = levels.shape
    pixels = levels[::-1, :, [2, 1, 0, 3]].tobytes()
    across, down = (round(dpi / 0.0254) for dpi in resolution or (0, 0))
    masks = struct.pack("<4I4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs") + bytes(48)
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(pixels), across, down, 0, 0) + masks
    return struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels


def encode_tiff(
    levels: np.ndarray,
    exif: bytes = b"",
    profile: bytes = b"",
    xmp: bytes = b"",
    resolution: tuple[float, float] | None = None,
) -> bytes:
    """TIFF file of uint8 or uint16 levels (H, W, C): the tags, then one strip compressed by deflate.

    An EXIF block is a TIFF without a picture, so the pixels are appended to it, and a table that points to both. All
    else in the block stays at its offset, and every byte of it as it is.
    """
    height, width, channels = levels.shape
    block = exif.removeprefix(exif_blocks.PREFIX) or b"MM\0*" + bytes(4)
    order, kept = ifd.entries(block)
    differences = np.diff(
        levels, axis=1, prepend=np.zeros_like(levels[:, :1])
    )  # differences wrap around, as Predictor 2 requires
    stored = levels.dtype.newbyteorder("<" if order == "<" else ">")
    strip = zlib.compress(differences.astype(stored).tobytes())
    short, long = partial(ifd.field, order, ifd.SHORT), partial(ifd.field, order, ifd.LONG)
    tags = {
        256: long(width), 257: long(height), 258: short(*[levels.itemsize * 8] * channels), 259: short(8),
        262: short(1 if channels < 3 else 2), 273: long(0), 277: short(channels), 278: long(height),
        279: long(len(strip)), 317: short(2),
    }  # fmt: skip
    if channels in (2, 4):
        tags[338] = short(2)  # straight alpha
    for tag, kind, data in ((34675, ifd.UNDEFINED, profile), (700, ifd.BYTE, xmp)):
        if data:
            tags[tag] = ifd.Field(kind, len(data), data)
    if resolution and 282 not in kept:
        tags |= {tag: _ratio(order, value) for tag, value in zip((282, 283), resolution, strict=True)}
        tags[296] = short(2)
    others = exif_blocks.of_the_photograph(kept)
    tags[273] = long(len(ifd.extended(block, tags, others)))
    return ifd.extended(block, tags, others) + strip


def _ratio(order: str, value: float) -> ifd.Field:
    number = Fraction(value).limit_denominator(1 << 16)
    return ifd.field(order, ifd.RATIONAL, number.numerator, number.denominator)
