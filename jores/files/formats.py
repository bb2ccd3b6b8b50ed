"""Pixel formats of FFmpeg: what is lost by conversion, and which format is closest."""

from __future__ import annotations

from collections.abc import Iterable

from av import VideoFormat

_CLUMSY = ("nv", "yuyv", "uyvy", "xyz", "bayer")  # layouts that files rarely use


def colour_depth(pix_fmt: str) -> int:
    """Bits per channel."""
    return max(c.bits for c in VideoFormat(pix_fmt).components)


def has_alpha(pix_fmt: str) -> bool:
    """Whether the format has an alpha channel or a palette (which may hold alpha)."""
    shown = VideoFormat(pix_fmt)
    return shown.has_palette or any(c.is_alpha for c in shown.components)


def losses(source: str, target: str) -> list[str]:
    """Descriptions of what is lost by conversion from pixel format `source` to `target`; the most serious first."""
    found = []
    if has_alpha(source) and not has_alpha(target):
        found.append("alpha")
    if not _grey(source):
        if _grey(target):
            found.append("colour")
        elif any(a > b for a, b in zip(_sampling(source), _sampling(target), strict=True)):
            found.append(f"{_ratio(source)} colour sampling (written as {_ratio(target)})")
    if (depth := colour_depth(source)) > colour_depth(target):
        found.append(f"{depth} bits per channel (written with {colour_depth(target)})")
    if _rgb(source) and not _rgb(target) and not _grey(target):
        found.append("RGB (written as YUV)")
    return found


def ranked(source: str, choices: Iterable[str]) -> list[str]:
    """Those of `choices` that can be written, sorted by similarity to `source`, the most similar first."""
    usable = [name for name in set(choices) if _writable(name)]
    return sorted(usable, key=lambda name: (name != source, *_distance(source, name), name))


def _distance(source: str, target: str) -> tuple:
    depth, wanted = colour_depth(target), colour_depth(source)
    samples = tuple(b - a for a, b in zip(_sampling(source), _sampling(target), strict=True))
    return (
        has_alpha(source) and not has_alpha(target),
        _grey(target) and not _grey(source),
        min(samples) < 0,
        max(0, wanted - depth),
        _rgb(source) != _rgb(target) and not _grey(source),
        has_alpha(target) and not has_alpha(source),
        max(0, depth - wanted),
        sum(samples),
        _grey(source) and not _grey(target),
        target.startswith(_CLUMSY),
    )


def _writable(name: str) -> bool:
    shown = VideoFormat(name)
    floating = name.endswith(("f16le", "f16be", "f32le", "f32be", "f"))
    return not (shown.has_palette or shown.is_bit_stream or floating or colour_depth(name) < 5)


def _grey(name: str) -> bool:
    return name.startswith(("gray", "mono", "ya8", "ya16"))


def _rgb(name: str) -> bool:
    shown = VideoFormat(name)
    return shown.is_rgb or shown.has_palette


def _sampling(name: str) -> tuple[int, int]:
    """Number of chroma samples in 16 columns and in 16 rows of pixels."""
    if _grey(name) or _rgb(name):
        return 16, 16
    shown = VideoFormat(name, 16, 16)
    return shown.chroma_width(16), shown.chroma_height(16)


def _ratio(name: str) -> str:
    named = {(16, 16): "4:4:4", (8, 16): "4:2:2", (8, 8): "4:2:0", (4, 16): "4:1:1", (16, 8): "4:4:0", (4, 4): "4:1:0"}
    return named.get(_sampling(name), "this")
