"""Names of classes to numbers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import pyarrow as pa

from neurotrain.data.sources.base import SourceError


def labelled(table: pa.Table, *, classes: Sequence[str] | None, subject: str) -> pa.Table:
    """Turn a text column ``label`` into numbers, and keep the names as ``label_name``.

    Args:
        table: with a column ``label``; one of numbers stays as it is.
        classes: names in the order of their numbers; None: those that are there, sorted.
        subject: what the table is, for messages.

    Returns:
        The table; ``label`` is int64.

    Raises:
        SourceError: lists the names that ``classes`` has not.

    Example:
        >>> labelled(pa.table({"label": ["fox", "cat", "fox"]}), classes=None, subject="toy").to_pydict()
        {'label': [1, 0, 1], 'label_name': ['fox', 'cat', 'fox']}
    """
    names = table.column("label")
    position = table.column_names.index("label")
    if not (pa.types.is_string(names.type) or pa.types.is_large_string(names.type)):
        if classes is not None:
            raise SourceError(subject, [f"classes={tuple(classes)!r} has no effect: labels are numbers already"])
        return table.set_column(position, "label", names.cast(pa.int64()))
    found = sorted(name for name in names.unique().to_pylist() if name is not None)
    known = found if classes is None else list(classes)
    problems: list[str] = []
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            problems.append(
                f"label {name!r} is not one of classes={tuple(known)!r}; nearest: {near[0] if near else None!r}"
            )
    if problems:
        raise SourceError(subject, problems)
    number = {name: index for index, name in enumerate(known)}
    numbers = pa.array([number.get(name) for name in names.to_pylist()], pa.int64())
    return table.set_column(position, "label", numbers).append_column("label_name", names)
