"""Rows of a user's table to rows of an index: which column is what."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from neurotrain.data.sources.base import SourceError
from neurotrain.data.sources.caption_tables import joined_rows
from neurotrain.data.sources.labels import labelled
from neurotrain.data.sources.table_files import missing_columns

_LOGGER = logging.getLogger(__name__)

FILES = ("image", "mask", "valid", "video")
"""Roles of columns that name a file, beside ``mask/<label>`` and ``conditioning/<name>``."""

VALUES = ("id", "caption", "label", "split")
"""Roles of columns that hold a value."""

_OWN = frozenset({"id", "uri", "key", "size", "etag", "modified", "label_name"})


def checked_columns(columns: Mapping[str, str] | None, *, first: str) -> dict[str, str]:
    """Roles and their columns, the first field's own first.

    Args:
        columns: name of a column by role; None: the field's own name.
        first: role that every row must have.

    Returns:
        A copy.

    Raises:
        SourceError: lists unknown roles.

    Example:
        >>> checked_columns({"image": "path", "captoin": "text"}, first="image")
        Traceback (most recent call last):
        ...
        neurotrain.data.sources.base.SourceError: columns: 1 problem
          'captoin': no such role; one of image, mask, ... nearest: 'caption'
    """
    if columns is None:
        return {first: first}
    roles = (*FILES, *VALUES)
    problems = [
        f"{role!r}: no such role; one of {', '.join(roles)}, mask/<label>, conditioning/<name>; "
        f"nearest: {difflib.get_close_matches(role, roles, n=1, cutoff=0.0)[0]!r}"
        for role in columns
        if role not in roles and not is_file(role)
    ]
    if first not in columns:
        problems.append(f"{first!r}: is missing: it names the files that the samples are")
    if problems:
        raise SourceError("columns", problems)
    return {first: columns[first], **columns}


def is_file(role: str) -> bool:
    """Whether a role's column names a file."""
    kind, _, name = role.partition("/")
    return role in FILES or (kind in ("mask", "conditioning") and bool(name))


def file_id(name: str) -> str:
    """A file's name without its ending.

    Example:
        >>> file_id("a.b/c.tar.gz")
        'a.b/c.tar'
    """
    folder, slash, last = name.rpartition("/")
    stem = last.rpartition(".")[0] or last
    return f"{folder}{slash}{stem}"


def entry_columns(
    rows: pa.Table,
    columns: Mapping[str, str],
    *,
    first: str,
    classes: Sequence[str] | None,
    default_caption: str | None,
    subject: str,
    make_id: Callable[[str], str] = file_id,
) -> pa.Table:
    """Name the columns of a table as an index does, and check them.

    Args:
        rows: the user's table.
        columns: name of a column by role.
        first: role that names the samples' own files.
        classes: names of the labels, in their order.
        default_caption: for rows without one.
        subject: what the table is, for messages.
        make_id: makes an id of the name of a row's file, where no column has them.

    Returns:
        One column a role, ``id`` first; then the user's other columns. Files are still as the table has them.

    Raises:
        SourceError: lists absent columns, rows without a file, ids that are there twice, unknown labels.
    """
    if problems := missing_columns(rows, columns):
        raise SourceError(subject, problems)
    found: dict[str, pa.ChunkedArray | pa.Array] = {}
    for role, column in columns.items():
        values = rows.column(column)
        if role == "caption":
            found[role] = joined_rows(values, default=default_caption)
        else:
            found[role] = values
        if role != "split" and role != "label" and found[role].null_count:
            empty = [row for row, value in enumerate(found[role].to_pylist()) if value is None]
            problems += [f"row {row + 1}: column {column!r} is empty" for row in empty]
    if problems:
        raise SourceError(subject, problems)
    if "id" not in found:
        found = {"id": _numbered([make_id(name) for name in found[first].to_pylist()]), **found}
    table = pa.table({"id": found.pop("id"), **found})
    _check_unique(table.column("id"), columns, subject)
    if "label" in found:
        table = labelled(table, classes=classes, subject=subject)
    return _with_others(table, rows, columns, subject)


def _with_others(table: pa.Table, rows: pa.Table, columns: Mapping[str, str], subject: str) -> pa.Table:
    for name in rows.column_names:
        if name in columns.values():
            continue
        if name in _OWN or name in table.column_names:
            _LOGGER.warning("%s: column %r is not kept: the index has its own of that name", subject, name)
            continue
        table = table.append_column(name, rows.column(name))
    return table


def _check_unique(ids: pa.ChunkedArray, columns: Mapping[str, str], subject: str) -> None:
    seen: dict[str, int] = {}
    problems: list[str] = []
    for row, identifier in enumerate(ids.to_pylist()):
        earlier = seen.setdefault(identifier, row)
        if earlier != row:
            problems.append(f"rows {earlier + 1} and {row + 1} have the id {identifier!r}")
    if problems:
        raise SourceError(f"{subject}, column {columns.get('id', 'id')!r}", problems)


def _numbered(names: list[str]) -> pa.Array:
    """Tell rows of one file apart: the second one is ``a#2``."""
    counts: dict[str, int] = {}
    ids: list[str] = []
    for name in names:
        count = counts[name] = counts.get(name, 0) + 1
        ids.append(name if count == 1 else f"{name}#{count}")
    return pa.array(ids, pa.string())
