"""Ways to damage a file: bytes of any format, and values of a document or table."""

import copy
import json
import math
import random
import struct
from typing import Any

NUMBERS = (0, 1, -1, 2, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63)
TEXTS = (
    "",
    "x",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egpj",
    "\udcff",
    "[red]a[/]",
    "a" * 5000,
    "\0",
    "../../etc/passwd",
    "/dev/zero",
    "nan",
    "ß" * 300,
)
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *TEXTS,
    -(2**63),
    10**30,
    0.5,
    -0.0,
    1e308,
    math.nan,
    math.inf,
    True,
    False,
    None,
    [],
    {},
    [[]],
    [0],
    {"": {}},
    ["x"] * 300,
    [2**31 - 1] * 4,
)


def damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    """`content` after a few changes: bits, numbers, parts moved, doubled or cut."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            return bytes(rng.randbytes(rng.randrange(8)))
        at = rng.randrange(len(data))
        kind = rng.randrange(8)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            number = rng.choice(NUMBERS) * rng.choice((1, -1))
            width = rng.choice((1, 2, 4, 8))
            part = (number % 2 ** (8 * width)).to_bytes(width, rng.choice(("little", "big")))
            data[at : at + width] = part
        elif kind == 3:
            del data[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 16))
        elif kind == 5:
            length = rng.randrange(1, 256)
            to = rng.randrange(len(data))
            data[to : to + length] = data[at : at + length]
        elif kind == 6:
            del data[at:]
        else:
            data[at:at] = rng.choice((b"\x1b[31m", b"\0" * 8, b"\xff" * 8, b"9" * 20, b'"', b",,,"))
    return bytes(data)


def damaged_text(rng: random.Random, content: bytes) -> bytes:
    """Text in which cells, lines and numbers are changed too."""
    if rng.random() < 0.4:
        return damaged_bytes(rng, content)
    lines = content.split(b"\n")
    k = rng.randrange(len(lines))
    cells = lines[k].split(b",")
    value = str(rng.choice(VALUES)).encode("utf-8", "surrogateescape")
    kind = rng.randrange(5)
    if kind == 0:
        cells[rng.randrange(len(cells))] = value
        lines[k] = b",".join(cells)
    elif kind == 1:
        lines[k] = lines[k] + b"," + value
    elif kind == 2:
        lines[k : k + 1] = [lines[k]] * rng.choice((0, 2, 50))
    elif kind == 3:
        lines[k] = b",".join(cells * rng.choice((2, 100)))
    else:
        return content.replace(b",", rng.choice((b";", b"\t", b"|")))
    return b"\n".join(lines)


def damaged_value(rng: random.Random, document: Any) -> Any:
    """A copy of nested lists, dicts and values with one or a few places changed."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document = _changed(rng, document)
    return document


def damaged_json(rng: random.Random, content: bytes) -> bytes:
    """A JSON document with changed values, and now and then changed bytes."""
    if rng.random() < 0.15:
        return damaged_bytes(rng, content)
    if rng.random() < 0.02:
        return b"[" * rng.choice((20, 900, 10**5))
    document = damaged_value(rng, json.loads(content))
    return json.dumps(document).encode()


def damaged_table(rng: random.Random, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Columns with some values, names or whole columns changed."""
    columns = dict(columns)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not columns:
            return {"x": [1]}
        name = rng.choice(list(columns))
        kind = rng.randrange(7)
        if kind == 0:
            del columns[name]
        elif kind == 1:
            columns[rng.choice((*TEXTS[:-3], f"{name} "))] = columns.pop(name)
        elif kind == 2:
            value = rng.choice(VALUES)
            columns[name] = [value] * len(columns[name])
        elif kind == 3:
            rows = len(columns[name])
            columns = {
                key: (cells * 2)[: rng.choice((0, 1, 2 * rows))] for key, cells in columns.items()
            }
        elif columns[name]:
            cells = list(columns[name])
            cells[rng.randrange(len(cells))] = rng.choice((None, *VALUES))
            columns[name] = cells
    return columns


def _changed(rng: random.Random, document: Any) -> Any:
    places: list[tuple[Any, Any]] = []
    level = [document]
    while level:
        each = level.pop()
        if isinstance(each, dict | list):
            items = each.items() if isinstance(each, dict) else enumerate(each)
            for key, part in items:
                places.append((each, key))
                level.append(part)
    if not places or rng.random() < 0.01:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = holder[key]
    elif kind == 2 and isinstance(holder, list):
        holder.extend([holder[key]] * rng.choice((1, 5, 200)))
    elif kind == 3 and isinstance(holder[key], int | float):
        with_sign = holder[key] * rng.choice((-1, 2, 1.5, 10**6))
        holder[key] = with_sign
    elif kind == 4:
        other, name = rng.choice(places)
        holder[key] = copy.deepcopy(
            other.get(name)
            if isinstance(other, dict)
            else (other[name] if name < len(other) else None)
        )
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    return document


def damaged_length_prefixed(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file: its description changed as JSON, and its length stated anew."""
    if rng.random() < 0.5:
        return damaged_bytes(rng, content)
    (length,) = struct.unpack("<Q", content[:8])
    header = damaged_json(rng, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]
