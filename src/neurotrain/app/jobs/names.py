"""Names that somebody mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str:
    """Return the end of a message: the nearest names, or all of few, or nothing.

    Example:
        >>> nearest("trian", ["train", "test"])
        "; did you mean 'train'?"
    """
    known = sorted(set(names))
    near = difflib.get_close_matches(word, known, n=2)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; known: {', '.join(known)}" if 0 < len(known) <= 20 else ""
