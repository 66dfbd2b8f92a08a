"""Where a folder's captions come from."""

from __future__ import annotations

from typing import Any

from neurotrain.app.simpletuner.backend import Backend
from neurotrain.app.simpletuner.nodes import Node

STRATEGIES = ("textfile", "filename", "instanceprompt", "parquet", "jsonl", "csv", "huggingface")
_FOLDER = ("textfile", "filename", "instanceprompt", "parquet", "jsonl")


def strategy_of(backend: Backend) -> str:
    """The caption strategy, checked; an instance prompt alone comes before it."""
    given = backend.option("caption_strategy")
    if backend.flag("only_instance_prompt"):
        return "instanceprompt"
    if given not in STRATEGIES:
        backend.refuse("caption_strategy", f"{given!r}: one of {', '.join(map(repr, STRATEGIES))}; or --set it")
        return ""
    return str(given)


def table_of(backend: Backend) -> str | None:
    """Path of the table that a folder's captions are in; None where they are in none."""
    strategy = strategy_of(backend)
    if strategy not in ("parquet", "jsonl"):
        return None
    path = _block(backend).get("path")
    if not isinstance(path, str) or not path:
        backend.refuse(f"{_key(backend)}.path", f"{path!r}: caption_strategy={strategy!r} needs the table's path")
        return None
    return path


def captions_of(backend: Backend, *, table: str | None) -> Node | None:
    """Captions of a folder.

    Args:
        backend: of type local or aws.
        table: key of the table in the storage of the images, from :func:`table_of`.
    """
    strategy = strategy_of(backend)
    prompt = backend.option("instance_prompt")
    if strategy == "instanceprompt":
        if not isinstance(prompt, str) or not prompt.strip():
            backend.refuse("instance_prompt", f"{prompt!r}: this is to be every caption")
            prompt = "-"
        return Node(group="data/captions", name="InstancePrompt", values={"text": prompt})
    if prompt:
        backend.note("instance_prompt", f"has no effect with caption_strategy={strategy!r}")
    if strategy in ("textfile", "filename"):
        name = "SiblingText" if strategy == "textfile" else "FileNameCaption"
        return Node(group="data/captions", name=name)
    if table is not None:
        return _table(backend, table)
    if strategy and strategy not in _FOLDER:
        backend.refuse("caption_strategy", f"{strategy!r} with type={backend.type!r}: {', '.join(map(repr, _FOLDER))}")
    return None


def _table(backend: Backend, table: str) -> Node:
    block = dict(_block(backend))
    key = _key(backend)
    block.pop("path", None)
    includes = block.pop("identifier_includes_extension", False)
    values: dict[str, Any] = {"table": table, "match": "name" if includes else "stem"}
    for theirs, ours in (("filename_column", "image"), ("caption_column", "caption")):
        column = block.pop(theirs, None)
        if not isinstance(column, str):
            backend.refuse(f"{key}.{theirs}", f"{column!r}: expected a column's name")
        values[ours] = column
    for name in ("width_column", "height_column"):
        if block.pop(name, None):
            backend.note(f"{key}.{name}", "has no effect here: sizes come from the images' own headers, read once")
    for name, value in block.items():
        if value is not None:
            backend.refuse(f"{key}.{name}", f"{value!r} has no counterpart: write such captions into caption_column")
    return Node(group="data/captions", name="CaptionTable", values=values)


def _key(backend: Backend) -> str:
    return "jsonl" if backend.has("jsonl") else "parquet"


def _block(backend: Backend) -> Any:  # noqa: ANN401 - a JSON object
    return backend.block(_key(backend))
