"""The source of a backend: a folder, a bucket, a table of addresses, a dataset of the hub, clips."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any

from neurotrain.app.simpletuner.backend import Backend
from neurotrain.app.simpletuner.captions import captions_of, strategy_of, table_of
from neurotrain.app.simpletuner.nodes import Node
from neurotrain.app.simpletuner.places import Place, place_of, storage_of

MODULES = {
    "local": "LocalDataModule",
    "aws": "S3DataModule",
    "csv": "CsvDataModule",
    "huggingface": "HuggingFaceDataModule",
}
"""The data module of each storage."""


def source_of(backend: Backend, *, name: str, conditioning: Sequence[Backend] = ()) -> Node:
    """The source of a backend.

    Args:
        backend: whose images, clips or rows.
        name: of the source.
        conditioning: backends whose images are paired with its own.
    """
    if backend.type in ("csv", "huggingface"):
        for other in conditioning:
            backend.refuse("conditioning_data", f"{other.id!r}: only folders and buckets are paired by file names")
        if backend.kind == "video":
            backend.refuse("dataset_type", f"'video' with type={backend.type!r}: clips lie in folders or buckets")
        return _url_table(backend, name) if backend.type == "csv" else _hub(backend, name)
    if backend.type == "memory":
        backend.refuse("type", "'memory' is for text_embeds and image_embeds only")
    return _folder(backend, name, conditioning)


def _folder(backend: Backend, name: str, conditioning: Sequence[Backend]) -> Node:
    own, table = place_of(backend), table_of(backend)
    places = [own]
    for other in conditioning:
        place = place_of(other)
        if other.type != backend.type or place.bucket != own.bucket:
            backend.refuse("conditioning_data", f"{other.id!r} lies in another storage: it must be the same one")
        places.append(place)
    if table is not None:
        beside = table if table.startswith("/") or own.bucket else posixpath.join(own.path, table)
        places.append(Place(path=posixpath.dirname(beside), bucket=own.bucket))
    storage, keys = storage_of(backend, places)
    if table is not None:
        table = posixpath.join(keys.pop(), posixpath.basename(table))
    field = "video" if backend.kind == "video" else "image"
    values: dict[str, Any] = {"name": name, "storage": storage, field: posixpath.join(keys[0], _files(backend))}
    if conditioning:
        folders = zip(conditioning, keys[1:], strict=True)
        values["conditioning"] = {other.name: posixpath.join(key, "{id}{ext}") for other, key in folders}
    captions = captions_of(backend, table=table)
    if captions is not None:
        values["captions"] = captions
    if field == "image":
        values["dimensions"] = True
    return Node(group="data/source", name="VideoSource" if field == "video" else "FolderSource", values=values)


def _files(backend: Backend) -> str:
    if backend.kind != "video":
        return "{id}{ext}"
    backend.note("instance_data_dir", "clips are the files *.mp4; another ending: change the source's `video`")
    return "{id}.mp4"


def _url_table(backend: Backend, name: str) -> Node:
    file = backend.needed("csv_file", "the table of addresses")
    cache = backend.needed("csv_cache_dir", "the folder for downloads")
    columns = {"image": backend.text("csv_url_column", "url")}
    if strategy_of(backend) == "csv":
        columns["caption"] = backend.needed("csv_caption_column", "the column of captions")
    else:
        backend.refuse("caption_strategy", "with type='csv' captions are in the table: 'csv'")
    tables = Node(group="data/storage", name="LocalStorage", values={"root": posixpath.dirname(file) or "."})
    values = {
        "name": name,
        "web": Node(group="data/storage", name="UrlStorage"),
        "table": posixpath.basename(file),
        "tables": tables,
        "cache_dir": cache,
        "columns": columns,
    }
    return Node(group="data/source", name="UrlTableSource", values=values)


def _hub(backend: Backend, name: str) -> Node:
    block = dict(backend.block("huggingface"))
    path = backend.needed("dataset_name", "the dataset's name on the hub, or a folder")
    columns = {
        field: block.pop(key, None) or backend.option(key) or default
        for field, key, default in (("image", "image_column", "image"), ("caption", "caption_column", None))
    }
    if isinstance(columns["caption"], list):
        backend.refuse("caption_column", f"{columns['caption']}: one column of texts, or of lists of texts")
    for key in ("width_column", "height_column"):
        if block.pop(key, None):
            backend.note(f"huggingface.{key}", "has no effect here: images are decoded, and their size is known then")
    for key, value in block.items():
        if value not in (None, False) and not (isinstance(value, dict) and value.get("enabled") is False):
            backend.refuse(f"huggingface.{key}", "has no counterpart; filters of rows: the source's `filters`, by hand")
    if strategy_of(backend) not in ("", "huggingface"):
        backend.refuse("caption_strategy", "with type='huggingface' captions are in a column: 'huggingface'")
    values: dict[str, Any] = {"name": name, "path": path, "split": backend.text("split", "train")}
    values["columns"] = {field: column for field, column in columns.items() if column is not None}
    local = path.startswith(("/", ".", "~"))
    revision = backend.text("revision")
    if revision is None and not local:
        backend.note("revision", "not given: a commit of 40 digits must be set, a branch could move under a run")
    if not local:
        values["revision"] = revision or "???"
        if (cache := backend.text("cache_dir")) is not None:
            values["cache_dir"] = cache
    return Node(group="data/source", name="HuggingFaceSource", values=values)
