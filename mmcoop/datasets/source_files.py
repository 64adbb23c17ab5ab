"""The files in a source folder."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mmcoop.datasets.rejects import Unusable
from mmcoop.errors import DataError

VIDEO_FILES = frozenset(
    f".{ending}"
    for ending in "mp4 m4v mov mkv webm avi mpg mpeg wmv flv 3gp ts ogv asf".split()  # noqa: SIM905
)
SOUND_FILES = frozenset([".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma"])
PICTURE_FILES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"])


class SourceFiles:
    """The files in a folder whose names end in one of `endings`, links and all, by name.

    `others` are the files with other endings, `broken` the links so named that lead to no file.
    Links to folders are followed, each real folder once: a loop of links ends. Hidden files and
    folders are passed over. Raises `DataError` where `folder` is not a folder.
    """

    def __init__(self, folder: Path, endings: frozenset[str]) -> None:
        check_source(folder)
        self.folder = folder
        self.paths: list[Path] = []
        self.others: list[Path] = []
        self.broken: list[Path] = []
        for path in _walk(folder):
            named = path.suffix.lower() in endings
            if path.is_file():
                (self.paths if named else self.others).append(path)
            elif named and not path.exists():
                self.broken.append(path)
        self.by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self.by_stem[path.stem].append(path)

    def some_names(self, most: int = 3) -> str:
        """The first names in the folder, for a message."""
        names = [str(path.relative_to(self.folder)) for path in self.paths]
        if not names:
            names = sorted(path.name for path in self.folder.iterdir())
        more = ", …" if len(names) > most else ""
        return (", ".join(names[:most]) + more) or "nothing"


def check_source(folder: Path) -> None:
    """Raise `DataError` where `folder` is not a folder."""
    if not folder.is_dir():
        raise DataError(f"--source {folder} is not a folder: give the folder of the clips")


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`; `Unusable` where the name would lead out of it.

    An absolute path is one in `folder` if it leads there.
    """
    parts = _relative(folder, PurePosixPath(name.replace("\\", "/")))
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or ":" in parts.parts[0]:
        raise Unusable(
            "outside-folder",
            f"{name!r} is not a path inside the source folder: paths are relative to --source",
        )
    return folder.joinpath(*parts.parts)


def _relative(folder: Path, path: PurePosixPath) -> PurePosixPath:
    """`path` as it is seen from `folder`; as it is where it is not absolute, or leads elsewhere."""
    if not path.is_absolute() or "\0" in str(path):
        return path
    # first where it really is, then as it is written: a link in the folder may lead out of it
    for place, base in (
        (os.path.realpath(path), os.path.realpath(folder)),
        (path, folder.absolute()),
    ):
        if PurePosixPath(place).is_relative_to(base):
            return PurePosixPath(place).relative_to(base)
    return path


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        found = Path(here).stat()
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(here, name)
            if not name.startswith("."):
                yield path
