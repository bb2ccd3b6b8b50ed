"""The kinds of files that are read and written, by their suffixes in lower case."""

from __future__ import annotations

from . import heif, raw

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
    ".jfif": "JPEG", ".jpe": "JPEG", ".dib": "BMP",
}  # fmt: skip
DEVELOPED = (*raw.SUFFIXES, *heif.SUFFIXES)
"""Suffixes that are read if an optional library is installed; their results are written as TIFF."""

VIDEO_FORMATS = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".ts": "mpegts",
    ".mts": "mpegts", ".m2ts": "mpegts",
}  # fmt: skip
"""Suffixes of videos, and FFmpeg's name of the container that is written for each; see `clips`."""
