"""Tables of text out of CSV, TSV, JSONL and Parquet files."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from io import BytesIO

import pyarrow as pa

from neurotrain.data.sources.base import SourceError
from neurotrain.data.sources.parquet_groups import decode_parquet
from neurotrain.documents import refuse_deep_json

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Endings of the files that count as a table."""


def ending_of(key: str) -> str:
    """Ending of a table's file, lower case.

    Raises:
        ValueError: if it is none of :data:`ENDINGS`.

    Example:
        >>> ending_of("a/b.CSV")
        '.csv'
    """
    ending = f".{key.rpartition('.')[2].lower()}"
    if ending not in ENDINGS:
        raise ValueError(f"table={key!r}: the ending must be one of {', '.join(ENDINGS)}")
    return ending


def read_table(data: bytes, *, key: str, text: Collection[str] = ()) -> pa.Table:
    r"""Read a table.

    Args:
        data: the whole file; CSV and TSV have a header line, JSONL has one object a line.
        key: of the file: its ending tells the format.
        text: columns that are text whatever they look like, so that ``0012`` stays ``0012``; of a Parquet file, numbers
            become text.

    Returns:
        The table, its columns in the file's order.

    Raises:
        SourceError: if the file cannot be read, or has a column twice.
        ValueError: if the ending is unknown.

    Example:
        >>> read_table(b"name,size\n007,8\n", key="a.csv", text=("name",)).to_pylist()
        [{'name': '007', 'size': 8}]
    """
    ending = ending_of(key)
    try:
        if ending == ".parquet":
            table = decode_parquet(data, key=key)
        elif ending in (".jsonl", ".ndjson"):
            refuse_deep_json(data)
            table = _from_jsonl(data)
        else:
            table = _from_csv(data, delimiter="\t" if ending == ".tsv" else ",", text=text)
    except (ValueError, pa.ArrowTypeError, OSError) as error:  # ArrowInvalid is a ValueError
        raise SourceError(key, [f"cannot be read as {ending[1:]} ({error})"]) from error
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise SourceError(key, [f"column {name!r} is there more than once" for name in twice])
    for name in text:
        position = table.schema.get_field_index(name)
        if position >= 0 and not pa.types.is_nested(table.schema.field(position).type):
            table = table.set_column(position, name, table.column(position).cast(pa.string()))
    return table


def missing_columns(table: pa.Table, columns: Mapping[str, str]) -> list[str]:
    """What is wrong with a choice of columns.

    Args:
        table: to choose from.
        columns: name of a column by what it is for.

    Returns:
        One line for each that is not there, with the nearest name.

    Example:
        >>> missing_columns(pa.table({"file": ["a"]}), {"image": "fil"})
        ["columns.image='fil': no such column, of 'file'; nearest: 'file'"]
    """
    names = table.column_names
    problems: list[str] = []
    for role, column in columns.items():
        if column not in names:
            near = difflib.get_close_matches(column, names, n=1, cutoff=0.0)
            nearest = f"; nearest: {near[0]!r}" if near else ""
            known = ", ".join(map(repr, names)) or "none"
            problems.append(f"columns.{role}={column!r}: no such column, of {known}{nearest}")
    return problems


def _from_csv(data: bytes, *, delimiter: str, text: Collection[str]) -> pa.Table:
    from pyarrow import csv

    return csv.read_csv(
        BytesIO(data),
        # One block, or the first rows alone would decide what type a column has.
        read_options=csv.ReadOptions(use_threads=False, block_size=max(len(data), 1) + 1),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types={name: pa.string() for name in text}),
    )


def _from_jsonl(data: bytes) -> pa.Table:
    from pyarrow import json

    # Without threads and in one block: the order of the rows is the file's, and a type is decided by all of them.
    return json.read_json(BytesIO(data), json.ReadOptions(use_threads=False, block_size=max(len(data), 1) + 1))
