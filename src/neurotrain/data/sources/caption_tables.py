"""Captions of a folder's images out of one file: a table, or COCO's annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import pyarrow as pa

from neurotrain.data.sources.base import SourceError
from neurotrain.data.sources.captions import Captions, joined
from neurotrain.data.sources.table_files import ending_of, missing_columns, read_table
from neurotrain.documents import parse_json
from neurotrain.storage.base import ObjectInfo, Storage

Match = Literal["id", "key", "name", "stem"]
"""What a row names its image by: the entry's id, its key below the root, its file name with or without the ending."""


class CaptionTable(Captions):
    """A CSV, TSV, JSONL or Parquet file with a row for each caption; several rows of one image are several captions.

    Args:
        table: key of the file, in the storage of the images.
        image: column that names the image.
        caption: column of texts, or of lists of texts.
        match: what the image is named by.
        default: caption of an image that the table has not; None makes that an error.

    Raises:
        ValueError: if the file's ending or ``match`` is unknown.
    """

    def __init__(
        self,
        *,
        table: str,
        image: str = "image",
        caption: str = "caption",
        match: Match = "name",
        default: str | None = None,
    ) -> None:
        ending_of(table)
        if match not in get_args(Match):
            raise ValueError(f"match={match!r}: must be one of {', '.join(map(repr, get_args(Match)))}")
        self.table = table
        self.image = image
        self.caption = caption
        self.match: Match = match
        self.default = default

    def objects(self, storage: Storage) -> tuple[ObjectInfo, ...]:
        """The table's file."""
        return (storage.stat(self.table),)

    def settings(self) -> dict[str, Any]:
        """All arguments."""
        return {"captions": "table", **vars(self)}

    def read(self, table: pa.Table, previous: pa.Table | None, *, storage: Storage, threads: int) -> list[str | None]:
        """Look every image up.

        Raises:
            SourceError: if the table cannot be read, lacks a column, or holds none of the images.
        """
        rows = read_table(storage.read(self.table), key=self.table, text=(self.image, self.caption))
        if problems := missing_columns(rows, {"image": self.image, "caption": self.caption}):
            raise SourceError(storage.uri_of(self.table), problems)
        texts: dict[str, list[str]] = {}
        names, captions = rows.column(self.image).to_pylist(), rows.column(self.caption).to_pylist()
        for name, caption in zip(names, captions, strict=True):
            several = caption if isinstance(caption, list) else [caption]
            texts.setdefault(name, []).extend(text for text in several if text is not None)
        return _looked_up(texts, table, self.match, uri=storage.uri_of(self.table))


class CocoCaptions(Captions):
    """The captions of COCO's annotation files; an image with several captions has them all.

    Args:
        annotations: key of the file, in the storage of the images.
        default: caption of an image that it has not; None makes that an error.

    Reference:
        https://cocodataset.org/#format-data, section 5 (image captioning).
    """

    def __init__(self, *, annotations: str, default: str | None = None) -> None:
        self.annotations = annotations
        self.default = default

    def objects(self, storage: Storage) -> tuple[ObjectInfo, ...]:
        """The annotation file."""
        return (storage.stat(self.annotations),)

    def settings(self) -> dict[str, Any]:
        """All arguments."""
        return {"captions": "coco", **vars(self)}

    def read(self, table: pa.Table, previous: pa.Table | None, *, storage: Storage, threads: int) -> list[str | None]:
        """Look every image up by its file name.

        Raises:
            SourceError: if the file is no COCO file, or holds none of the images.
        """
        uri = storage.uri_of(self.annotations)
        try:
            content = parse_json(storage.read(self.annotations))
            names = {image["id"]: image["file_name"] for image in content["images"]}
            texts: dict[str, list[str]] = {}
            for annotation in content["annotations"]:
                texts.setdefault(names[annotation["image_id"]], []).append(annotation["caption"])
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(uri, [f"no file of COCO captions ({type(error).__name__}: {error})"]) from error
        return _looked_up(texts, table, "name", uri=uri)


def _looked_up(texts: Mapping[str, list[str]], table: pa.Table, match: Match, *, uri: str) -> list[str | None]:
    lines = joined({name: captions for name, captions in texts.items() if captions})
    found = [lines.get(_name(key, identifier, match)) for key, identifier in _pairs(table)]
    if lines and not any(text is not None for text in found):
        first = _name(*_pairs(table)[0], match)
        example = next(iter(lines))
        raise SourceError(uri, [f"names none of the images by their {match}: it has {example!r}, they are {first!r}"])
    return found


def _pairs(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table.column("key").to_pylist(), table.column("id").to_pylist(), strict=True))


def _name(key: str, identifier: str, match: Match) -> str:
    if match == "id":
        return identifier
    if match == "key":
        return key
    name = key.rpartition("/")[2]
    return name if match == "name" else name.rpartition(".")[0] or name


def joined_rows(values: pa.ChunkedArray, *, default: str | None) -> pa.Array:
    r"""Texts, or lists of texts, as captions: each is one line; null where there is neither a text nor a default.

    Example:
        >>> joined_rows(pa.chunked_array([[["A fox.", "Red."], None]]), default="A photo.").to_pylist()
        ['A fox.\nRed.', 'A photo.']
    """
    texts: list[str | None] = []
    for value in values.to_pylist():
        several = [text for text in (value if isinstance(value, list) else [value]) if text is not None]
        texts.append(joined({"": [str(text) for text in several]})[""] if several else default)
    return pa.array(texts, pa.string())
