"""Files and folders that appear whole or not at all."""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmcoop.errors import DataError, UsageError, setting
from mmcoop.names import is_utf8
from mmcoop.reading.json_files import read_json

# The system's numbers for a disk, a quota or a limit on the size of files that is used up.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    with atomic_write(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        # of a file name that is not UTF-8, what cannot be encoded is written as JSON escapes
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def has_format(path: Path, name: str) -> bool:
    """Whether `path` is a JSON file of mmcoop's that calls its format `name`."""
    try:
        content = read_json(path, dict[str, Any])
    except DataError:
        return False
    return content.get("format") == name


_AGAIN = "make room and give the command again"


class NoRoom(DataError):
    """A disk that is full, the bytes that are needed at least, and what to do."""

    def __init__(self, path: Path, least: int, more: bool, then: str = _AGAIN) -> None:
        self.least = least
        self._given = (path, least, more, then)
        super().__init__(
            f"no room left on the disk of {path}, for which {'more than ' if more else ''}"
            f"{math.ceil(least / 1024):,} KiB are needed: {then}"
        )

    def __reduce__(self) -> tuple[type["NoRoom"], tuple[Path, int, bool, str]]:
        return NoRoom, self._given  # it may come from another process


def check_room(path: Path, least: int) -> None:
    """Raise `DataError` where the disk of `path` has less than `least` bytes free."""
    free = shutil.disk_usage(path.parent).free
    if free < least:
        raise DataError(
            f"the disk of {path} has {free // 1024:,} KiB free, and at least "
            f"{math.ceil(least / 1024):,} KiB are needed: make room, or choose another disk"
        )


@contextmanager
def disk_room(path: Path, writing: Path, size: int = 0, then: str = _AGAIN) -> Iterator[None]:
    """Where the disk is full in the block, say of which file or folder, and how much it needs.

    Args:
        path: What is being made.
        writing: The temporary file or folder that becomes it.
        size: How many bytes it takes; 0 where that is not known.
        then: What to do.

    Raises:
        NoRoom: The disk is full. Of blocks within each other, the outermost one names its `path`:
            the temporary names inside are nobody's.
    """
    try:
        yield
    except Exception as error:
        if not _is_full_disk(error):
            raise
        files = [writing] if writing.is_file() else writing.rglob("*")
        written = sum(file.stat().st_size for file in files if file.is_file())
        inner = error.least if isinstance(error, NoRoom) else 0
        raise NoRoom(path, max(size, written, inner), size == 0, then) from None


def _is_full_disk(error: Exception) -> bool:
    """Whether a disk, a quota or a limit on the size of files is used up, in whatever words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NO_ROOM
    # safetensors and torch say it in the message alone
    words = ("os error 28", "os error 27", "Writer failed wri", "unexpected pos", "iostream error")
    return isinstance(error, NoRoom) or any(text in str(error) for text in words)


@contextmanager
def atomic_write(path: Path, size: int = 0) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block ends well.

    Raises `DataError` where the disk is full; `size`: how many bytes are needed, if known.
    """
    temporary = hidden_beside(path, "partial")
    try:
        with disk_room(path, temporary, size):
            yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, size: int = 0) -> Iterator[Path]:
    """Give an empty temporary folder; put it in the place of `path` if the block ends well.

    A folder that stood there is removed only once the new one is complete. `recover_swap`
    ends a replacement that was cut off between its two renames. Raises `DataError` where the disk
    is full; `size`: how many bytes are needed, if known.
    """
    temporary = hidden_beside(path, "partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with disk_room(path, temporary, size):
            yield temporary
        _put(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        recover_swap(path)


@contextmanager
def resumable_folder(path: Path) -> Iterator[Path]:
    """Give a working folder that stays when the block fails, and is given again the next time.

    Put in the place of `path` if the block ends well. One process at a time: see `locks.py`.
    """
    working = hidden_beside(path, "building")
    working.mkdir(parents=True, exist_ok=True)
    with disk_room(path, working):
        yield working
    try:
        _put(working, path)
    finally:
        recover_swap(path)


def _put(folder: Path, path: Path) -> None:
    """Rename `folder` to `path`; what stands there keeps its old name until `recover_swap`."""
    recover_swap(path)
    if path.exists():
        path.rename(_old(path))
    folder.rename(path)


def recover_swap(path: Path) -> None:
    """End a replacement by `atomic_folder`: remove the old folder if the new one is in its place,
    put it back if not, as when the process was killed between the two renames.
    """
    old = _old(path)
    if not path.exists() and is_half_replaced(path):
        old.rename(path)
    elif old.is_symlink():
        old.unlink()
    elif old.exists():
        shutil.rmtree(old)


def is_half_replaced(path: Path) -> bool:
    """Whether a replacement of the folder by `atomic_folder` is under way, or was cut off."""
    return os.path.lexists(_old(path))


def standing_folder(path: Path) -> Path:
    """Where the folder is at this moment: under its old name while `atomic_folder` replaces it.

    For those who only read: unlike `recover_swap` it changes nothing that a writer counts on.
    """
    return _old(path) if _old(path).is_dir() and not path.exists() else path


def hidden_beside(path: Path, ending: str) -> Path:
    """`.NAME.ending` beside `path`, for what is there while it is written."""
    full = path.resolve() if path.name in ("", "..") else path
    return full.with_name(f".{full.name}.{ending}")


def _old(path: Path) -> Path:
    return hidden_beside(path, "old")


def check_path(path: Path) -> None:
    """Raise `UsageError` for a path that is not UTF-8, which Arrow and safetensors cannot open."""
    if not is_utf8(str(path)):
        raise UsageError(
            f"the path {path} is not UTF-8: rename its folders and files, or work in the folder "
            "that is named so and give the path from there"
        )


def check_new_file(path: Path, overwrite: bool, option: str = "out") -> None:
    """Raise `UsageError` where `path` may not be written: it exists, or its folder does not.

    `option` is the one that gave it.
    """
    check_path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: give {setting(option)} the name of a file")
    if path.exists() and not overwrite:
        raise UsageError(
            f"{path} exists: choose another {setting(option)}, or replace it with "
            f"{setting('overwrite', True)}"
        )
    if not path.parent.is_dir():
        raise UsageError(
            f"the folder {path.parent} does not exist: make it, or change {setting(option)}"
        )


def check_new_folder(path: Path, overwrite: bool, is_ours: Callable[[Path], bool]) -> None:
    """Raise `UsageError` where a folder may not be made at `path`.

    An existing folder is replaced only on request, and only if `is_ours` recognises it: a
    mistyped `--out` must never cost a user other files. An empty folder is free.
    """
    check_path(path)
    if path.name in ("", "..") or path.is_mount():
        raise UsageError(
            f"{path} cannot be replaced: give {setting('out')} the name of a folder to make"
        )
    standing = standing_folder(path)
    if standing.is_dir() and not any(standing.iterdir()):
        return
    if standing.exists() or standing.is_symlink():
        if not is_ours(standing):
            raise UsageError(
                f"{path} exists and was not made by mmcoop: choose another {setting('out')}"
            )
        if not overwrite:
            raise UsageError(
                f"{path} exists: choose another {setting('out')}, or replace it with "
                f"{setting('overwrite', True)}"
            )
