"""Atomic writing: files and folders appear complete or not at all."""

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

# Error numbers for a full disk, an exhausted quota and the limit on file sizes.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    with atomic_write(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        # bytes of file names that are not UTF-8 are written as JSON escapes
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def has_format(path: Path, name: str) -> bool:
    """Whether `path` is a JSON file whose `format` is `name`."""
    try:
        content = read_json(path, dict[str, Any])
    except DataError:
        return False
    return content.get("format") == name


_AGAIN = "make room and give the command again"


class NoRoom(DataError):
    """The disk is full.

    Args:
        path: What was being written.
        least: The bytes that it needs at least.
        more: Whether it needs more than that.
        then: What to do.
    """

    def __init__(self, path: Path, least: int, more: bool, then: str = _AGAIN) -> None:
        self.least = least
        self._given = (path, least, more, then)
        super().__init__(
            f"no room left on the disk of {path}, for which {'more than ' if more else ''}"
            f"{math.ceil(least / 1024):,} KiB are needed: {then}"
        )

    def __reduce__(self) -> tuple[type["NoRoom"], tuple[Path, int, bool, str]]:
        return NoRoom, self._given  # picklable, since it may cross processes


def check_room(path: Path, least: int) -> None:
    """Raise `DataError` if the disk of `path` has less than `least` bytes free."""
    free = shutil.disk_usage(path.parent).free
    if free < least:
        raise DataError(
            f"the disk of {path} has {free // 1024:,} KiB free, and at least "
            f"{math.ceil(least / 1024):,} KiB are needed: make room, or choose another disk"
        )


@contextmanager
def disk_room(path: Path, writing: Path, size: int = 0, then: str = _AGAIN) -> Iterator[None]:
    """Turn errors about a full disk in the block into `NoRoom`.

    Args:
        path: What is being written.
        writing: The temporary file or folder that becomes it.
        size: How many bytes it needs; 0 if unknown.
        then: What the user can do.

    Raises:
        NoRoom: The disk is full. Of nested blocks, the outermost names its `path`, because inner
            ones have temporary names.
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
    """Whether an error of any library means that a disk, quota or file-size limit is exhausted."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NO_ROOM
    # safetensors and torch report it only in the message
    words = ("os error 28", "os error 27", "Writer failed wri", "unexpected pos", "iostream error")
    return isinstance(error, NoRoom) or any(text in str(error) for text in words)


@contextmanager
def atomic_write(path: Path, size: int = 0) -> Iterator[Path]:
    """Write a file under a temporary name, and rename it if the block ends without an error.

    Args:
        path: The file to write.
        size: How many bytes it needs; 0 if unknown.

    Yields:
        The temporary path, beside `path`.

    Raises:
        NoRoom: The disk is full.
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
    """Fill a temporary folder, and move it to `path` if the block ends without an error.

    An existing folder is removed only after the new one is complete. `recover_swap` completes a
    replacement that was interrupted between its two renames.

    Args:
        path: The folder to write.
        size: How many bytes it needs; 0 if unknown.

    Yields:
        An empty folder beside `path`.

    Raises:
        NoRoom: The disk is full.
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
    """Fill a working folder that survives errors, and move it to `path` when the block succeeds.

    The next call continues with the same folder. Hold the lock on `path` (`locks.py`).

    Args:
        path: The folder to write.

    Yields:
        The working folder, beside `path`.

    Raises:
        NoRoom: The disk is full.
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
    """Rename `folder` to `path`, after moving an existing folder aside for `recover_swap`."""
    recover_swap(path)
    if path.exists():
        path.rename(_old(path))
    folder.rename(path)


def recover_swap(path: Path) -> None:
    """Complete a replacement by `atomic_folder`.

    Removes the old folder if the new one is in place. Otherwise, because the process was killed
    between the two renames, moves it back.
    """
    old = _old(path)
    if not path.exists() and is_half_replaced(path):
        old.rename(path)
    elif old.is_symlink():
        old.unlink()
    elif old.exists():
        shutil.rmtree(old)


def is_half_replaced(path: Path) -> bool:
    """Whether a replacement of the folder by `atomic_folder` is in progress or was interrupted."""
    return os.path.lexists(_old(path))


def standing_folder(path: Path) -> Path:
    """Where the folder currently is: moved aside while `atomic_folder` replaces it.

    For readers: unlike `recover_swap`, this changes nothing that a writer relies on.
    """
    return _old(path) if _old(path).is_dir() and not path.exists() else path


def hidden_beside(path: Path, ending: str) -> Path:
    """The path `.NAME.ending` beside `path`, for temporary files."""
    full = path.resolve() if path.name in ("", "..") else path
    return full.with_name(f".{full.name}.{ending}")


def _old(path: Path) -> Path:
    return hidden_beside(path, "old")


def check_path(path: Path) -> None:
    """Raise `UsageError` if a path is not UTF-8: Arrow and safetensors could not open it."""
    if not is_utf8(str(path)):
        raise UsageError(
            f"the path {path} is not UTF-8: rename its folders and files, or work in the folder "
            "that is named so and give the path from there"
        )


def check_new_file(path: Path, overwrite: bool, option: str = "out") -> None:
    """Check that a file may be written.

    Args:
        path: The file.
        overwrite: Whether it may exist.
        option: Name of the setting that holds the path, for messages.

    Raises:
        UsageError: The file exists, is a folder, or its folder does not exist.
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
    """Check that a folder may be made.

    An existing folder is replaced only on request, and only if mmcoop made it: a typing error must
    never cost a user other files. An empty folder may always be used.

    Args:
        path: The folder.
        overwrite: Whether it may be replaced.
        is_ours: Recognises a folder made by mmcoop.

    Raises:
        UsageError: The folder exists and may not be replaced.
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
