"""What every layout does: take samples one by one, and end with whole files."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from neurotrain.data.convert.entries import Entry

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


class Writer(ABC):
    """Files of one layout below a folder that nobody else sees yet.

    Args:
        folder: empty.
    """

    def __init__(self, *, folder: Path) -> None:
        self._folder = folder

    @abstractmethod
    def add(self, entry: Entry) -> None:
        """Write a sample; samples of a split come one after the other."""

    @abstractmethod
    def close(self) -> None:
        """Finish the last files; calling it again does nothing."""

    def _write(self, key: str, content: bytes) -> None:
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)


def check_parts(names: Iterable[str], *, what: str) -> None:
    """Refuse names that a folder or a file could not have.

    Args:
        names: of splits, or of fields, where ``/`` parts them.
        what: they name, for messages.

    Raises:
        ValueError: names the first.
    """
    for name in names:
        if not all(_PART.fullmatch(part) for part in name.split("/")):
            raise ValueError(f"{what} {name!r} cannot name a file: letters, digits, '_', '-' and '.' can")
