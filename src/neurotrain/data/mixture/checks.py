"""How a mixture's settings are told: mistakes all in one error, arrays by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray


def nearest(value: str, valid: Iterable[str]) -> str:
    """What to say of a name that is unknown.

    Args:
        value: the name.
        valid: those that are known.

    Returns:
        The nearest one, and all.

    Example:
        >>> nearest("cycel", ["cycle", "stop"])
        "did you mean 'cycle'? Valid: 'cycle', 'stop'"
    """
    choices = list(valid)
    near = get_close_matches(value, choices, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Valid: {', '.join(map(repr, choices)) or 'none'}"


def refuse(subject: str, problems: Sequence[str]) -> None:
    """Raise one error out of all problems, if there are any.

    Args:
        subject: what they are about.
        problems: one line each.

    Raises:
        ValueError: listing them.
    """
    if len(problems) == 1:
        raise ValueError(f"{subject}: {problems[0]}")
    if problems:
        raise ValueError("\n  ".join([f"{subject}: {len(problems)} problems", *problems]))


def digest(array: NDArray[Any]) -> str:
    """Identity of an array's values, equal for every integer type and for every floating one.

    Args:
        array: numbers.

    Returns:
        16 hexadecimal digits.
    """
    told = np.ascontiguousarray(array, np.float64 if np.asarray(array).dtype.kind == "f" else np.int64)
    return hashlib.blake2b(told.data, digest_size=8).hexdigest()
