"""Finding files in a source folder."""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from mmcoop.datasets.file_kinds import kinds_by_content, kinds_by_ending, stem
from mmcoop.datasets.rejects import Unusable
from mmcoop.errors import DataError, setting
from mmcoop.names import normalised


class SourceFiles:
    """The files of some kinds in a folder and its subfolders.

    File extensions decide. If no file has a matching extension, the content of files with unknown
    extensions does. Links are followed, each real folder once, so that loops end. Hidden files and
    folders are ignored.

    Args:
        folder: The folder.
        *kinds: Kinds of files, as in `file_kinds`. With several collections, a file must be of a
            kind in each of them.

    Attributes:
        paths: The matching files.
        others: All other files.
        broken: Broken links with a matching extension.
        by_stem: The matching files by normalised name without extension.

    Raises:
        DataError: `folder` is not a folder.
    """

    def __init__(self, folder: Path, *kinds: Collection[str]) -> None:
        check_source(folder)
        self.folder = folder
        self.paths: list[Path] = []
        self.others: list[Path] = []
        self.broken: list[Path] = []

        def wanted(found: frozenset[str]) -> bool:
            return all(found.intersection(some) for some in kinds)

        for path in _walk(folder):
            named = wanted(kinds_by_ending(path))
            if path.is_file():
                (self.paths if named else self.others).append(path)
            elif named and not path.exists():
                self.broken.append(path)
        if not self.paths:
            unknown = [path for path in self.others if not kinds_by_ending(path)]
            self.paths = [path for path in unknown if wanted(kinds_by_content(path))]
            self.others = [path for path in self.others if path not in set(self.paths)]
        self.by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self.by_stem[normalised(stem(path))].append(path)

    def some_names(self, most: int = 3) -> str:
        """The first matching names, for a message; without any, the names and extensions there."""
        if self.paths:
            return _first([str(path.relative_to(self.folder)) for path in self.paths], most)
        seen = Counter(path.suffix.lower() for path in self.others)
        endings = [f"{ending or 'none'} ({count:,})" for ending, count in seen.most_common()]
        ends = f"; endings of its files: {_first(endings, most)}" if endings else ""
        return names_in(self.folder, most) + ends


def names_in(folder: Path, most: int = 3) -> str:
    """The first names in a folder, for a message."""
    check_source(folder)
    return _first(sorted(path.name for path in folder.iterdir()), most)


def _first(names: Sequence[str], most: int) -> str:
    return (", ".join(names[:most]) + ", …" * (len(names) > most)) or "nothing"


def check_source(folder: Path) -> None:
    """Raise `DataError` if `folder` is not a folder."""
    if not folder.is_dir():
        raise DataError(
            f"{setting('source')} {folder} is not a folder: give the folder of the clips"
        )


def inside(folder: Path, name: str) -> Path:
    """Resolve the path of a file in a folder, in the folder's spelling.

    Args:
        folder: The folder.
        name: A relative path, or an absolute one that leads into the folder.

    Returns:
        The path, which need not exist.

    Raises:
        Unusable: The path leaves the folder, or matches two files.
    """
    parts = _relative(folder, PurePosixPath(name.replace("\\", "/")))
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or ":" in parts.parts[0]:
        raise Unusable(
            "outside-folder",
            f"{name!r} is not a path inside the source folder: paths are relative to it",
        )
    path = folder
    for part in parts.parts:
        path = _as_spelt(path, part)
    return path


def _as_spelt(folder: Path, name: str) -> Path:
    """The entry of a folder whose normalised name is that of `name`, else `folder / name`."""
    path = folder / name
    # ASCII names have one spelling; `lexists` also accepts broken links
    if (name.isascii() and name == name.strip()) or "\0" in name or os.path.lexists(path):
        return path
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [other for other in there if normalised(other.name) == normalised(name)]
    if len(found) > 1:
        raise Unusable("name", f"{name!r} is the name of {len(found)} files: rename one of them")
    return found[0] if found else path


def differing_in_case(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Find paths in a folder that differ from names only in upper and lower case.

    Names are matched with their case, since two files may differ only in that. But tables written
    on case-insensitive systems are common, and the difference is easily overlooked.

    Args:
        folder: The folder.
        names: Relative paths.

    Returns:
        The path in the folder by name, for names that differ from it.
    """
    spellings: dict[PurePosixPath, dict[str, str]] = {}

    def spelling(name: str) -> str | None:
        here = PurePosixPath()
        for part in PurePosixPath(name.replace("\\", "/")).parts:
            if here not in spellings:
                place = folder / here
                there = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
                spellings[here] = {normalised(other).casefold(): other for other in there}
            found = spellings[here].get(normalised(part).casefold())
            if found is None:
                return None
            here /= found
        return here.as_posix()

    found = {name: spelling(name) for name in names}
    return {name: other for name, other in found.items() if other is not None and other != name}


def _relative(folder: Path, path: PurePosixPath) -> PurePosixPath:
    """Make an absolute path relative to `folder`, if it leads there; else return it unchanged."""
    if not path.is_absolute() or "\0" in str(path):
        return path
    # try the real path, then the path as written, since a link in the folder may lead out of it
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
