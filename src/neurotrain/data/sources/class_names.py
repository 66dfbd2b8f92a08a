"""Names of classes, where a table tells them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from neurotrain.documents import parse_json


def noted_class_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Names of the classes of an integer column where ``datasets`` noted them in the schema, else None."""
    noted = (schema.metadata or {}).get(b"huggingface")
    try:
        feature = parse_json(noted)["info"]["features"][column] if noted else {}
        names = feature["names"] if feature.get("_type") == "ClassLabel" else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # a note that nobody promised, in another shape
    return None if names is None else tuple(str(name) for name in names)


def folder_class_names(labels: pa.ChunkedArray, paths: pa.ChunkedArray) -> tuple[str, ...] | None:
    """Names of the folders of the images, where every label from 0 on has one of its own (``truck/0770.jpg``).

    Args:
        labels: whole numbers.
        paths: of the images.

    Returns:
        By label; None where it is not so.

    Example:
        >>> paths = pa.chunked_array([["dog/1.png", "cat/1.png", "dog/2.png"]])
        >>> folder_class_names(pa.chunked_array([[1, 0, 1]]), paths)
        ('cat', 'dog')
    """
    folders = pc.call_function("extract_regex", [paths], pc.ExtractRegexOptions("^(?P<folder>[^/]+)/"))
    pairs = pa.table({"label": labels, "folder": pc.call_function("struct_field", [folders], pc.StructFieldOptions(0))})
    unique = pairs.group_by(["label", "folder"]).aggregate([]).sort_by("label").to_pydict()
    numbers, folders = unique["label"], unique["folder"]
    one_each = len(set(numbers)) == len(numbers) == len(set(folders))
    if None in numbers or None in folders or not one_each or numbers != list(range(len(numbers))):
        return None
    return tuple(folders)
