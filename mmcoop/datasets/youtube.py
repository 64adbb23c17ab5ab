"""File names of YouTube clips, as used by published lists and common download tools.

A name is a video's id of 11 characters, optionally followed by the second or millisecond at which
the clip starts, and by the one at which it ends: `dQw4w9WgXcQ`, `dQw4w9WgXcQ_30`,
`dQw4w9WgXcQ_000030_000040`, `dQw4w9WgXcQ_30000_40000`. A complete video may have its title before
its id: `Title [dQw4w9WgXcQ]`.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from mmcoop.datasets.source_files import SourceFiles

#: Length of a clip, in seconds, if its name only has its start.
CLIP_SECONDS = 10

_TITLED = re.compile(r".* \[([A-Za-z0-9_-]{11})\]", re.DOTALL)
_NAME = re.compile(r"([A-Za-z0-9_-]{11})(?:_(\d{1,9}))?(?:_(\d{1,9}))?")


class ClipName(NamedTuple):
    """A video's id and a window; None for what the name does not state."""

    video: str
    start: int | None
    end: int | None


def parse_name(name: str) -> ClipName | None:
    """Parse a clip's name; None for a name of another form."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    start, end = (None if number is None else int(number) for number in match.groups()[1:])
    return ClipName(match[1], start, end)


class YouTubeFiles:
    """Finds the files of clips in a folder by the video and window in their names."""

    def __init__(self, files: SourceFiles) -> None:
        self._exact = files.by_stem
        self._of_video: dict[str, list[tuple[ClipName, Path]]] = defaultdict(list)
        for path in files.paths:
            titled = _TITLED.fullmatch(path.stem)
            if name := parse_name(titled[1] if titled else path.stem):
                self._of_video[name.video].append((name, path))

    def find(self, name: str, folder: str | None = None) -> tuple[Path, bool] | None:
        """Find the file of a clip.

        Prefers a file of exactly this name, then one of the same window, then the complete video.
        For a clip without a window, any clip of its video will do.

        Args:
            name: Name of the clip.
            folder: Name of a folder, such as the class, whose files are preferred among several.

        Returns:
            The file, and whether, by its name, it is the complete video; None if there is no file.
        """
        clip = parse_name(name)
        found = [(path, False) for path in self._exact.get(name, [])]
        if clip is not None:
            others = self._of_video.get(clip.video, [])
            if clip.start is None:
                found += [(path, False) for _, path in others]
            else:
                found += [(path, False) for other, path in others if _same(clip, other)]
                found += [(path, True) for other, path in others if other.start is None]
        if not found:
            return None
        matching = [f for f in found if f[1] == found[0][1] and f[0].stem == found[0][0].stem]
        near = [f for f in matching if _plain(f[0].parent.name) == _plain(folder or "")]
        return (near or found)[0]


def _same(asked: ClipName, other: ClipName) -> bool:
    if asked.start is None or other.start is None:
        return False
    return any(
        other.start == asked.start * unit
        and (asked.end is None or other.end is None or other.end == asked.end * unit)
        for unit in (1, 1000)
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
