"""The type of a source file, by its extension or, if that is unknown, by its content."""

import re
from collections.abc import Mapping
from pathlib import Path

_VIDEO = (
    "mp4 m4v mov qt mkv webm avi divx mpg mpeg mpe m2v m1v vob ts mts m2ts m2t tp wmv asf flv f4v "
    "3gp 3g2 ogv mxf rm rmvb dv y4m gif"
)
_SOUND = (
    "wav wave w64 rf64 flac mp3 mp2 mpga ogg oga opus spx m4a m4b aac ac3 eac3 dts wma aiff aif "
    "aifc au snd caf amr awb mka weba wv ape tta voc sph"
)
_PICTURE = "jpg jpeg jpe jfif png bmp dib webp tif tiff gif ppm pgm pbm pnm avif avifs jp2 j2k"

#: Extensions by kind of file. A .gif may be a picture or a video.
ENDINGS: Mapping[str, frozenset[str]] = {
    kind: frozenset(f".{ending}" for ending in endings.split())
    for kind, endings in (
        ("video", _VIDEO),
        ("sound", _SOUND),
        ("picture", _PICTURE),
        ("array", "npy"),
    )
}

# Extensions of unfinished downloads, and of previews that cameras store beside a video.
_UNFINISHED = "part partial crdownload download opdownload tmp temp aria2 ytdl lrv thm"
_NEVER = frozenset(f".{ending}" for ending in _UNFINISHED.split())

# FFmpeg's formats that have a signature. It may detect others in arbitrary bytes.
_SIGNED = (
    "mov,mp4,m4a,3gp,3g2,mj2 matroska,webm avi asf flv gif mpeg mpegvideo mpegts mxf rm "
    "yuv4mpegpipe wav w64 flac mp3 ogg aac ac3 eac3 aiff au caf amr amrnb amrwb nistsphere voc wv "
    "ape tta"
)
_FFMPEG = frozenset(_SIGNED.split())
_PILLOW = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
_NUMPY = b"\x93NUMPY"

_HEAD = 1024


def kinds_by_ending(path: Path) -> frozenset[str]:
    """The kinds (keys of `ENDINGS`) that a file's extension may have; empty if it is unknown."""
    ending = path.suffix.lower()
    return frozenset(kind for kind, endings in ENDINGS.items() if ending in endings)


def kinds_by_content(path: Path) -> frozenset[str]:
    """The kinds (keys of `ENDINGS`) that a file's content may be, from reading its beginning.

    Empty if it is text, cannot be read, is not recognised with certainty, or has the extension of
    an unfinished download.
    """
    if path.suffix.lower() in _NEVER:
        return frozenset()
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return frozenset()
    if head.startswith(_NUMPY):
        return frozenset(["array"])
    # text is skipped because FFmpeg would follow playlists and lists of files
    return _picture(path) or (frozenset() if _is_text(head) else _media(path))


def file_kinds(path: Path) -> frozenset[str]:
    """The kinds of a file by its extension or, if that is unknown, by its content."""
    return kinds_by_ending(path) or kinds_by_content(path)


def stem(path: Path) -> str:
    """The name of a file without its extension, if what follows the last dot looks like one."""
    suffix = path.suffix
    ends = kinds_by_ending(path) or re.fullmatch(r"\.[A-Za-z][A-Za-z0-9_]*", suffix)
    return path.name.removesuffix(suffix) if ends else path.name


def _is_text(head: bytes) -> bool:
    try:
        # the head may end within a character
        text = head.decode("utf-8", "strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return False
    return len(text.encode()) >= len(head) - 3 and "\0" not in text


def _picture(path: Path) -> frozenset[str]:
    from PIL import Image

    try:
        with Image.open(path, formats=_PILLOW) as picture:
            return frozenset(["picture", "video"] if picture.format == "GIF" else ["picture"])
    except (OSError, ValueError, SyntaxError, OverflowError, Image.DecompressionBombError):
        return frozenset()


def _media(path: Path) -> frozenset[str]:
    import av
    from av.stream import Disposition

    try:
        # FFmpeg could take a relative path with a colon for a protocol
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            if container.format.name not in _FFMPEG:
                return frozenset()
            streams = container.streams
            if any(not s.disposition & Disposition.attached_pic for s in streams.video):
                return frozenset(["video"])
            return frozenset(["sound"] if streams.audio else [])
    except (av.FFmpegError, OSError, ValueError):
        return frozenset()
