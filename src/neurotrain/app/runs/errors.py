"""What a user of the registry can get wrong."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class RunsError(ValueError):
    """A request that cannot be met, with what to type instead."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the nearest known name, or nothing.

    Example:
        >>> nearest("test/dise", ["test/dice", "val/loss"])
        "; did you mean 'test/dice'?"
        >>> nearest("x", ["test/dice"])
        ''
    """
    matches = get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
