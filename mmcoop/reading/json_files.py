"""JSON files, read through a type that says what has to be in them."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from mmcoop.errors import DataError, said

#: The most bytes of a JSON file.
LARGEST = 64 * 2**20
#: The deepest nesting of lists and objects.
DEEPEST = 32

#: What a `TypedDict` that describes a file is declared with: no conversion, and fields that this
#: version does not know are kept.
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
#: Text that can be written to any file: not part of a file name that is not UTF-8.
Text = Annotated[str, AfterValidator(_check_text)]
#: A whole number that is not negative and exact as a floating-point number.
Count = Annotated[int, Field(ge=0, le=2**53)]
#: A hash, in hexadecimal digits.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def read_json(path: Path, kind: type[T], *, largest: int = LARGEST) -> T:
    """Read a JSON file.

    Args:
        path: The file.
        kind: What is expected: a `TypedDict`, `dict[str, int]`, or any other type of JSON values.
        largest: The most bytes.

    Returns:
        The content, as JSON has it.

    Raises:
        DataError: The file is missing, too large, no JSON, nested too deeply, or something else
            than `kind`.
    """
    return checked(_load(path, largest), kind, path)


def read_versioned(path: Path, kind: type[T], version: int) -> T:
    """Read a JSON object that states its `format_version`; otherwise as `read_json`.

    Raises:
        DataError: As `read_json`, and for a file of another version.
    """
    content = _load(path, LARGEST)
    found = content.get("format_version") if isinstance(content, dict) else None
    if type(found) is not int or found != version:
        raise DataError(f"{path} has format version {found}: this mmcoop reads {version}")
    return checked(content, kind, path)


def checked(content: Any, kind: type[T], where: object) -> T:
    """`content` if it is a `kind`; `DataError`, naming `where` and the place in it, otherwise."""
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
    # not what pydantic makes of it, where 3 may have become 3.0: fingerprints depend on it
    return cast(T, content)


def parse_json(text: str | bytes, where: object) -> Any:
    """Any JSON from text that is bounded already; `DataError` where it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} cannot be read: {error}") from None
    _check_depth(content, where)
    return content


def read_text(path: Path, *, largest: int = LARGEST) -> str:
    """The text of a file, UTF-8 with or without a byte order mark.

    Raises:
        DataError: It is missing, larger than `largest` bytes, or not UTF-8.
    """
    try:
        return read_bytes(path, largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _load(path: Path, largest: int) -> Any:
    return parse_json(read_text(path, largest=largest), path)


def read_bytes(path: Path, largest: int) -> bytes:
    """All bytes of a file that has at most `largest`; `DataError` where it cannot be read."""
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
    """Raise `DataError` for nesting that functions calling themselves could not follow."""
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
