"""Files of a listing to entries: one row a sample, its files side by side."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from neurotrain.data.sources.base import LISTED, SourceError
from neurotrain.data.sources.patterns import KeyPattern

_LOGGER = logging.getLogger(__name__)
_OBJECT = ("size", "etag", "modified")

Places = tuple[str, ...]


def object_columns(field: str, *, first: str) -> dict[str, str]:
    """Names of the columns that hold a field's object: its key, size, etag and time.

    Args:
        field: the field.
        first: field whose object gives the row its ``key``, ``size``, ``etag`` and ``modified``.

    Example:
        >>> object_columns("mask", first="image")
        {'key': 'mask', 'size': 'mask_size', 'etag': 'mask_etag', 'modified': 'mask_modified'}
    """
    if field == first:
        return {name: name for name in ("key", *_OBJECT)}
    return {"key": field, **{name: f"{field}_{name}" for name in _OBJECT}}


def pair_files(
    listing: pa.Table,
    patterns: Mapping[str, KeyPattern],
    *,
    subject: str,
    optional: Iterable[str] = (),
) -> pa.Table:
    """Bring the files of each sample together.

    The first pattern tells the samples; a file that fits another one belongs to that one. Files are paired by the
    places that their pattern shares with the first one.

    Args:
        listing: columns ``key, size, etag, modified``.
        patterns: by field, the samples' own first; the others hold no place that the first one has not.
        subject: what is paired, for messages.
        optional: fields that a sample may lack.

    Returns:
        One row a sample, sorted by id: ``id`` (the places of its pattern, joined with ``/``), ``label`` and ``split``
        as text where the pattern has them, and :func:`object_columns` of every field.

    Raises:
        SourceError: if nothing fits the first pattern; or lists missing files and files that claim one place.
    """
    (first, own), *others = patterns.items()
    found, problems = _sorted_out(listing.column("key").to_pylist(), patterns)
    if not found[first]:
        raise SourceError(subject, [f"no object fits {first}={own.text!r} ({listing.num_rows} were listed)"])
    samples = sorted(("/".join(places), places, row) for places, row in found[first].items())
    columns = {"id": pa.array([identifier for identifier, _, _ in samples])}
    for place in ("label", "split"):
        if place in own.places:
            position = own.places.index(place)
            columns[place] = pa.array([places[position] for _, places, _ in samples])
    columns |= _taken(listing, first, first, [row for _, _, row in samples])
    for field, pattern in others:
        positions = [own.places.index(place) for place in pattern.places]
        rows = [found[field].get(tuple(places[position] for position in positions)) for _, places, _ in samples]
        if field not in optional:
            problems += [
                f"{_wanted(pattern, own, places)}: missing, the {field} of {identifier!r}"
                for (identifier, places, _), row in zip(samples, rows, strict=True)
                if row is None
            ]
        _warn_of_orphans(listing, field, found[field], rows, subject)
        columns |= _taken(listing, field, first, rows)
    if problems:
        raise SourceError(subject, problems)
    return pa.table(columns)


def _sorted_out(keys: list[str], patterns: Mapping[str, KeyPattern]) -> tuple[dict[str, dict[Places, int]], list[str]]:
    """Row of each field's file by the places of its pattern, and the files that claim a place twice."""
    found: dict[str, dict[Places, int]] = {field: {} for field in patterns}
    problems: list[str] = []
    # The samples' own pattern is the widest and comes last: ``{id}.png`` would take ``{id}_mask.png`` too.
    fields = [*list(patterns)[1:], next(iter(patterns))]
    for row, key in enumerate(keys):
        for field in fields:
            pattern = patterns[field]
            places = pattern.match(key) if key.startswith(pattern.prefix) else None
            if places is None:
                continue
            place = tuple(places[name] for name in pattern.places)
            earlier = found[field].setdefault(place, row)
            if earlier != row:
                problems.append(f"{key}: claims the {field} of {'/'.join(place)!r}, and so does {keys[earlier]}")
            break
    return found, problems


def _taken(listing: pa.Table, field: str, first: str, rows: list[int | None]) -> dict[str, pa.ChunkedArray]:
    taken = listing.take(pa.array(rows, pa.int64()))
    return {name: taken.column(column) for column, name in object_columns(field, first=first).items()}


def _wanted(pattern: KeyPattern, own: KeyPattern, places: Places) -> str:
    """The key that should be there."""
    text = pattern.text.replace("{ext}", ".*")
    for name, value in zip(own.places, places, strict=True):
        text = text.replace(f"{{{name}}}", value)
    return text


def _warn_of_orphans(
    listing: pa.Table, field: str, found: Mapping[Places, int], rows: list[int | None], subject: str
) -> None:
    orphans = np.array(sorted(set(found.values()) - set(rows)), dtype=np.int64)
    if len(orphans):
        shown = ", ".join(listing.column("key").take(pa.array(orphans[:LISTED])).to_pylist())
        more = ", ..." if len(orphans) > LISTED else ""
        _LOGGER.warning("%s: %d files of %r belong to no sample: %s%s", subject, len(orphans), field, shown, more)
