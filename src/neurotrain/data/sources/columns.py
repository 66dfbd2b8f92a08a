"""Columns of a table: which one feeds which field, and which rows are wanted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
"""How a column is compared; ``in`` and ``not in`` take a sequence of values."""

Scalar = bool | int | float | str
"""What a column is compared with."""

Filter = tuple[str, Operator, Scalar | Sequence[Scalar]]
"""One condition: column (dots lead into nested ones), operator, value. Several are all to be met; null meets none."""

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "img", "jpg", "jpeg", "png"),
    "mask": ("mask",),
    "valid": ("valid",),
    "video": ("video",),
    "conditioning": ("conditioning",),
    "caption": ("caption", "text"),
    "label": ("label", "labels"),
}
"""Field: the names that its column usually has, the likeliest first."""

NAMED_FIELDS = ("mask/", "conditioning/")
"""Beginnings of fields of which a sample may have several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One leaf of a schema.

    Attributes:
        path: names from the top-level column down to the leaf.
        type: of its values.
    """

    path: tuple[str, ...]
    type: pa.DataType

    @property
    def name(self) -> str:
        """The path with dots, as Parquet readers take it."""
        return ".".join(self.path)

    @property
    def is_binary(self) -> bool:
        """Whether its values are bytes."""
        return _is_binary(self.type)


def leaves(schema: pa.Schema) -> dict[str, Column]:
    """Every leaf of a schema that can be a field, by its dotted name; lists, maps and times are none."""
    found: dict[str, Column] = {}
    for item in schema:
        _add_leaves(found, (item.name,), item.type)
    return found


def match_columns(schema: pa.Schema, columns: Mapping[str, str] | None, *, subject: str) -> dict[str, Column]:
    """Which column feeds which field.

    Args:
        schema: of the table.
        columns: field: dotted name of its column; a struct with a child ``bytes``, as Hugging Face stores an image,
            stands for that child. None takes the columns with :data:`USUAL_NAMES`, and where none has a name that an
            image has, the only column of bytes that there is.
        subject: what the table is, for messages.

    Returns:
        The columns by field, in the order of ``columns``; at least one.

    Raises:
        ValueError: if there is no such column, its type is no field's, or an image cannot be told from others.

    Example:
        >>> schema = pa.schema({"img": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()})
        >>> {field: column.name for field, column in match_columns(schema, None, subject="toy").items()}
        {'image': 'img.bytes', 'label': 'label'}
        >>> match_columns(schema, {"image": "image"}, subject="toy")
        Traceback (most recent call last):
        ...
        ValueError: toy: columns.image='image': no such column; nearest: 'img', 'img.bytes', 'img.path'
    """
    if columns is None:
        return _usual_columns(schema, subject=subject)
    if not columns:
        raise ValueError(f"{subject}: columns={{}}: name at least one, of {_listed(leaves(schema))}")
    return {field: find_column(schema, name, key=f"{subject}: columns.{field}") for field, name in columns.items()}


def find_column(schema: pa.Schema, name: str, *, key: str) -> Column:
    """The leaf of a name.

    Args:
        schema: of the table.
        name: dotted; a struct with a child ``bytes`` stands for that child.
        key: what names it, for messages.

    Returns:
        The leaf.

    Raises:
        ValueError: if there is none, naming the nearest ones, or its type is no field's.
    """
    known = leaves(schema)
    column = known.get(name) or known.get(f"{name}.bytes")
    if column is not None:
        return column
    kind = _type_of(schema, name)
    if kind is not None:
        raise ValueError(f"{key}={name!r}: a column of type {kind} is no field: bytes, text and numbers are")
    names = [*known, *(item for item in schema.names if item not in known)]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:8]
    raise ValueError(f"{key}={name!r}: no such column; nearest: {_listed(near)}")


def filter_expression(schema: pa.Schema, filters: Iterable[Filter], *, subject: str) -> pc.Expression | None:
    """Conditions as one expression that Parquet's statistics can be tested with.

    Args:
        schema: of the table.
        filters: all of them are to be met.
        subject: what the table is, for messages.

    Returns:
        The expression, None without a filter.

    Raises:
        ValueError: if a column or an operator does not exist, or a value has not the column's type.
    """
    expression: pc.Expression | None = None
    for number, (name, operator, value) in enumerate(filters):
        key = f"{subject}: filters[{number}]"
        if operator not in get_args(Operator):
            raise ValueError(f"{key}: operator {operator!r} is not one of {_listed(get_args(Operator))}")
        column = find_column(schema, name, key=key)
        if column.is_binary:
            raise ValueError(f"{key}={name!r}: bytes are not compared")
        term = _compared(column, operator, value, key=key)
        expression = term if expression is None else expression & term
    return expression


def filter_columns(schema: pa.Schema, filters: Iterable[Filter], *, subject: str) -> list[str]:
    """Dotted names of the columns that the filters look at, each once."""
    names = [
        find_column(schema, name, key=f"{subject}: filters[{number}]").name
        for number, (name, _, _) in enumerate(filters)
    ]
    return list(dict.fromkeys(names))


def _usual_columns(schema: pa.Schema, *, subject: str) -> dict[str, Column]:
    known = leaves(schema)
    found: dict[str, Column] = {}
    for field, names in USUAL_NAMES.items():
        columns = [known.get(name) or known.get(f"{name}.bytes") for name in names]
        column = next((column for column in columns if column is not None), None)
        if column is not None:
            found[field] = column
    for name, column in known.items():
        role = name.removesuffix(".bytes")
        if column.is_binary and role.startswith(NAMED_FIELDS):
            found[role] = column
    if "image" in found or "video" in found:
        return found
    candidates = [column for column in known.values() if column.is_binary and column not in found.values()]
    if len(candidates) != 1:
        what = f"{_listed(column.name for column in candidates)} could be" if candidates else "no column of bytes is"
        raise ValueError(f"{subject}: {what} the image: name it, columns={{'image': ...}}; there are {_listed(known)}")
    return {"image": candidates[0], **found}


def _add_leaves(found: dict[str, Column], path: tuple[str, ...], kind: pa.DataType) -> None:
    if pa.types.is_struct(kind):
        for item in kind.fields:
            _add_leaves(found, (*path, item.name), item.type)
    elif _is_field(kind):
        column = Column(path=path, type=kind)
        # A flat column that has a dot in its name goes before a nested one that reads the same.
        if column.name not in found or len(path) == 1:
            found[column.name] = column


def _is_field(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_field(kind.value_type)
    types = pa.types
    return (
        _is_binary(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
    )


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _type_of(schema: pa.Schema, name: str) -> pa.DataType | None:
    for item in schema:
        if item.name == name:
            return item.type
        if name.startswith(f"{item.name}.") and pa.types.is_struct(item.type):
            return _type_of(pa.schema(item.type.fields), name[len(item.name) + 1 :])
    return None


def _compared(column: Column, operator: Operator, value: Any, *, key: str) -> pc.Expression:  # noqa: ANN401
    field = pc.field(*column.path)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    many = operator in ("in", "not in")
    if many and (isinstance(value, str) or not isinstance(value, Sequence)):
        raise ValueError(f"{key}: {operator!r} takes a sequence of values, got {value!r}")
    try:
        values = pa.array(list(value) if many else [value], type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(f"{key}: {value!r} is not comparable with {column.name!r} of type {kind}") from error
    if values.null_count:
        raise ValueError(f"{key}: nothing equals null: {value!r}")
    if many:
        chosen = field.isin(values)
        return chosen if operator == "in" else ~chosen & field.is_valid()
    other = pc.scalar(values[0])
    match operator:
        case "==":
            return field == other
        case "!=":
            return field != other
        case "<":
            return field < other
        case "<=":
            return field <= other
        case ">":
            return field > other
        case _:
            return field >= other


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
