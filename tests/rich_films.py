"""Films with all that a container can hold besides pictures, as `write_film` takes them."""

from __future__ import annotations

import io

from PIL import Image

ENG, DEU = ("aac", {"language": "eng", "title": "Commentary"}, 8), ("aac", {"language": "deu"}, 1)
FIRST, SECOND = ("aac", {"language": "eng"}, 0), ("aac", {"language": "fra"}, 1)
OPUS = [("libopus", {"language": "eng"}, 0), ("libopus", {"language": "fra"}, 1)]
SPOKEN = [("subrip", {"language": "eng", "title": "Signs"}, 64), ("subrip", {"language": "deu"}, 1)]
FONT = ("font.ttf", "font/ttf", b"glyphs" * 20)


def drawn(kind: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(data, kind)
    return data.getvalue()


FILMS = {
    "mkv": {"audio": [ENG, DEU], "subtitles": SPOKEN, "chapters": True, "flags": 0,
            "words": {"title": "night", "DIRECTOR": "me"},
            "video_words": {"title": "Camera", "language": "jpn"},
            "attachments": [FONT, ("cover.jpg", "image/jpeg", drawn("JPEG"))]},
    "mp4": {"audio": [FIRST, SECOND], "chapters": True, "cover": ("mjpeg", drawn("JPEG")),
            "subtitles": [("mov_text", {"language": "eng"}, 0)], "words": {"title": "night", "artist": "me"},
            "video_words": {"timecode": "01:00:00:00"}},
    "mov": {"audio": [FIRST, SECOND], "chapters": True,
            "words": {"title": "night", "com.apple.quicktime.make": "Apple"},
            "muxer": {"movflags": "use_metadata_tags"}, "video_words": {"timecode": "01:00:00:00"}},
    "m4v": {"audio": [SECOND], "cover": ("png", drawn("PNG")), "words": {"title": "night"}},
    "webm": {"encoder": "libvpx-vp9", "audio": OPUS, "chapters": True, "words": {"title": "night"},
            "subtitles": [("webvtt", {"language": "eng"}, 0)]},
    "ts": {"audio": [FIRST, ("aac", {"language": "fra"}, 128)]},
    "avi": {"encoder": "mpeg4", "audio": [("libmp3lame", {"title": "One"}, 0), ("pcm_s16le", {}, 0)], "flags": 0,
            "words": {"title": "night"}},
}  # fmt: skip
