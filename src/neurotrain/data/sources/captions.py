"""Where the captions of a folder of images come from.

A caption of several lines is several captions of one image, of which a decoder takes one.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from neurotrain.data.index import read_parallel, unchanged_rows
from neurotrain.data.sources.base import CAPTION_FILE, SourceError
from neurotrain.data.sources.pairing import object_columns
from neurotrain.data.sources.patterns import KeyPattern
from neurotrain.storage.base import ObjectInfo, Storage


class Captions(ABC):
    """Gives every image its caption while the index is built."""

    default: str | None = None
    """Caption of an image that has none; None makes that an error."""

    def patterns(self, image: KeyPattern) -> dict[str, KeyPattern]:
        """Patterns of files that are to be paired with the images, by field."""
        return {}

    def objects(self, storage: Storage) -> tuple[ObjectInfo, ...]:
        """Single objects that are read: when one of them changes, the index is built again."""
        return ()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the captions depend on, of plain values."""

    @abstractmethod
    def read(self, table: pa.Table, previous: pa.Table | None, *, storage: Storage, threads: int) -> list[str | None]:
        """Find the caption of each row.

        Args:
            table: the paired files.
            previous: an earlier index, with captions.
            storage: holds the files.
            threads: files that are read at once.

        Returns:
            One caption a row, None where there is none.
        """


class SiblingText(Captions):
    """A text file for each image: ``a.txt`` beside ``a.jpg``; each line that is not blank is one caption.

    Args:
        pattern: of the files, with the places of the images' pattern; None: beside the image, with the ending ``.txt``.
        default: caption of an image without a file; None makes that an error.
    """

    def __init__(self, *, pattern: str | None = None, default: str | None = None) -> None:
        self.pattern = pattern
        self.default = default

    def patterns(self, image: KeyPattern) -> dict[str, KeyPattern]:
        """The text files."""
        if self.pattern is None:
            return {CAPTION_FILE: image.sibling(".txt")}
        text = self.pattern if "{" in self.pattern else f"{self.pattern.strip('/')}/{{id}}.txt"
        return {CAPTION_FILE: KeyPattern(text, key="captions.pattern")}

    def settings(self) -> dict[str, Any]:
        """Pattern and default."""
        return {"captions": "sibling", "pattern": self.pattern, "default": self.default}

    def read(self, table: pa.Table, previous: pa.Table | None, *, storage: Storage, threads: int) -> list[str | None]:
        """Read new and changed files, take the others' text from the earlier index.

        Raises:
            SourceError: lists the files that are not UTF-8.
        """
        columns = list(object_columns(CAPTION_FILE, first="image").values())
        names = ["key", "size", "etag", "modified"]
        files = table.select(columns).rename_columns(names)
        known = previous is not None and {*columns, "caption"} <= {*previous.column_names}
        earlier = previous.select([*columns, "caption"]) if previous is not None and known else None
        rows = unchanged_rows(files, None if earlier is None else earlier.rename_columns([*names, "caption"]))
        captions: list[str | None] = [None] * table.num_rows
        if earlier is not None:
            kept = earlier.column("caption").take(pa.array(rows, mask=rows < 0)).to_pylist()
            captions = [caption if row >= 0 else None for caption, row in zip(kept, rows.tolist(), strict=True)]
        keys = files.column("key").to_pylist()
        wanted = [row for row, key in enumerate(keys) if key is not None and rows[row] < 0]
        texts = read_parallel(storage.read, [keys[row] for row in wanted], threads=threads, label="captions")
        problems: list[str] = []
        for row, text in zip(wanted, texts, strict=True):
            try:
                captions[row] = _lines(text.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                problems.append(f"{storage.uri_of(keys[row])}: is not UTF-8 ({error.reason} at byte {error.start})")
        if problems:
            raise SourceError("captions", problems)
        return captions


class FileNameCaption(Captions):
    """The file's name without its ending: ``a_red-fox.jpg`` is ``a red fox``.

    Args:
        separators: characters that stand for a space.
    """

    def __init__(self, *, separators: str = "_-") -> None:
        self.separators = separators

    def settings(self) -> dict[str, Any]:
        """The separators."""
        return {"captions": "name", "separators": self.separators}

    def read(self, table: pa.Table, previous: pa.Table | None, *, storage: Storage, threads: int) -> list[str | None]:
        """Read nothing: the key says it."""
        stems = (re.sub(r"\.[^./]*$", "", key.rpartition("/")[2]) for key in table.column("key").to_pylist())
        pattern = re.compile(f"[{re.escape(self.separators)}\\s]+") if self.separators else re.compile(r"\s+")
        return [pattern.sub(" ", stem).strip() for stem in stems]


class InstancePrompt(Captions):
    """One prompt for every image, as in DreamBooth.

    Args:
        text: the prompt.

    Raises:
        ValueError: if it is blank.
    """

    def __init__(self, *, text: str) -> None:
        if not text.strip():
            raise ValueError(f"text={text!r}: a prompt must not be blank")
        self.text = text

    def settings(self) -> dict[str, Any]:
        """The prompt."""
        return {"captions": "prompt", "text": self.text}

    def read(self, table: pa.Table, previous: pa.Table | None, *, storage: Storage, threads: int) -> list[str | None]:
        """Read nothing."""
        return [self.text] * table.num_rows


def caption_column(
    captions: Captions, table: pa.Table, previous: pa.Table | None, *, storage: Storage, threads: int, subject: str
) -> pa.Array:
    """Captions of every row, checked.

    Returns:
        Text, never null.

    Raises:
        SourceError: lists the images without a caption.
    """
    found = captions.read(table, previous, storage=storage, threads=threads)
    texts = [captions.default if text is None else text for text in found]
    missing = [key for key, text in zip(table.column("key").to_pylist(), texts, strict=True) if text is None]
    if missing:
        raise SourceError(subject, [f"{key}: has no caption, and captions.default is None" for key in missing])
    return pa.array(texts, pa.string())


def joined(captions: Mapping[str, list[str]]) -> dict[str, str]:
    r"""Several captions of one image as the lines of one text.

    Example:
        >>> joined({"a.jpg": ["A fox.", "A red\nfox."]})
        {'a.jpg': 'A fox.\nA red fox.'}
    """
    return {key: "\n".join(" ".join(text.split()) for text in texts) for key, texts in captions.items()}


def _lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())
