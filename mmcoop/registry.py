"""Tables of the things a user picks by name: recipes, methods, fusions, encoders.

A table is written out where its things live and names the module of each one, which is
imported only when the thing is used: `mmcoop --help` lists them all without loading torch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mmcoop.errors import UsageError


@dataclass(frozen=True)
class Entry:
    """One thing that can be chosen by name.

    Attributes:
        module: The module it is in.
        attribute: Its name there.
        summary: What it does, in a few words.
        source: The paper it is from.
    """

    module: str
    attribute: str
    summary: str
    source: str = ""


class Registry(Mapping[str, Entry]):
    """A fixed table from names to things of one kind.

    `kind` is the word used in messages ("fusion"). `load(name)` returns the thing itself and
    raises `UsageError`, listing the legal names, when there is no such name.
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, name: str) -> str:
        """Return `name` if the table has it; raise `UsageError` otherwise."""
        if name not in self._entries:
            raise UsageError(f"unknown {self.kind} {name!r}: choose one of {', '.join(self)}")
        return name

    def load(self, name: str) -> Any:
        """Import and return the thing called `name`."""
        entry = self._entries[self.check(name)]
        return getattr(import_module(entry.module), entry.attribute)
