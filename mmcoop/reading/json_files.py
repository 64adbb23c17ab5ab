"""JSON files, checked against a type that describes their content."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from mmcoop.errors import DataError, said

#: The largest JSON file, in bytes.
LARGEST = 64 * 2**20
#: The deepest nesting of lists and objects.
DEEPEST = 32

#: Configuration of every `TypedDict` that describes a file: values are not converted, and fields
#: unknown to this version are kept.
AS_WRITTEN = ConfigDict(strict=True, extra="allow")

T = TypeVar("T")


def _check_path(text: str) -> str:
    if "\0" in text:
        raise ValueError("a path cannot have a null character")
    encoded = os.fsencode(text)  # a UnicodeEncodeError is a ValueError
    if len(encoded) > 4096 or any(len(part) > 255 for part in encoded.split(b"/")):
        raise ValueError("a path cannot be this long")
    return text


def _check_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("text cannot hold a lone surrogate") from None
    return text


#: A path, as text.
PathText = Annotated[str, AfterValidator(_check_path)]
#: Text that UTF-8 can encode, unlike some file names.
Text = Annotated[str, AfterValidator(_check_text)]
#: A non-negative integer that float64 represents exactly.
Count = Annotated[int, Field(ge=0, le=2**53)]
#: A hash, in hexadecimal digits.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def read_json(path: Path, kind: type[T], *, largest: int = LARGEST) -> T:
    """Read a JSON file.

    Args:
        path: The file.
        kind: The expected type: a `TypedDict`, `dict[str, int]`, or any other type of JSON values.
        largest: The largest file, in bytes.

    Returns:
        The content, unchanged.

    Raises:
        DataError: The file is missing, too large, not JSON, nested too deeply, or not of type
            `kind`.
    """
    return checked(_load(path, largest), kind, path)


def read_versioned(path: Path, kind: type[T], version: int) -> T:
    """Read a JSON object whose `format_version` must be `version`; otherwise as `read_json`.

    Raises:
        DataError: As `read_json`, and for another version.
    """
    content = _load(path, LARGEST)
    found = content.get("format_version") if isinstance(content, dict) else None
    if type(found) is not int or found != version:
        raise DataError(f"{path} has format version {found}: this mmcoop reads {version}")
    return checked(content, kind, path)


def checked(content: Any, kind: type[T], where: object) -> T:
    """Return `content` if it is of type `kind`.

    Args:
        content: Parsed JSON.
        kind: The expected type.
        where: Where it is from, for messages.

    Raises:
        DataError: It is not; the message names the first wrong field.
    """
    try:
        _adapter(cast(Any, kind)).validate_python(content, strict=True)
    except UnicodeEncodeError:  # pydantic matches patterns in UTF-8
        raise DataError(
            f"{where} is not what mmcoop writes: it holds a lone surrogate, which is no text"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{where} is not what mmcoop writes: {place}{': ' if place else ''}{first['msg']}"
        ) from None
    # not pydantic's result, in which 3 may have become 3.0: fingerprints depend on it
    return cast(T, content)


def parse_json(text: str | bytes, where: object) -> Any:
    """Parse JSON from text of limited size.

    Args:
        text: The text.
        where: Where it is from, for messages.

    Raises:
        DataError: It is not JSON, or nested too deeply.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} cannot be read: {error}") from None
    _check_depth(content, where)
    return content


def read_text(path: Path, *, largest: int = LARGEST) -> str:
    """Read a file of UTF-8 text, with or without a byte order mark.

    Raises:
        DataError: The file is missing, larger than `largest` bytes, or not UTF-8.
    """
    try:
        return read_bytes(path, largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _load(path: Path, largest: int) -> Any:
    return parse_json(read_text(path, largest=largest), path)


def read_bytes(path: Path, largest: int) -> bytes:
    """Read a file of at most `largest` bytes.

    Raises:
        DataError: The file is missing, larger, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {said(error)}") from None
    if len(content) > largest:
        raise DataError(f"{path} is larger than {largest / 2**20:,.0f} MiB, the most for its kind")
    return content


def _check_depth(content: Any, where: object) -> None:
    """Raise `DataError` for nesting so deep that recursive functions could fail on it."""
    level = [content]
    for _ in range(DEEPEST):
        level = [
            part
            for each in level
            if isinstance(each, list | dict)
            for part in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise DataError(f"{where} cannot be read: it is nested more than {DEEPEST} levels deep")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
