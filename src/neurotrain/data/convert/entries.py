"""What is converted: samples as they are stored, whatever they come from."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from neurotrain.data.datasets.base import Record, SegmentationDataset
from neurotrain.data.sources.base import Field, Source

_LONGEST = 80
"""Characters of a file's name without its endings, which tar and every file system take."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"BM", "bmp"),
    (b"\x93NUMPY", "npy"),
    (b"\x1f\x8b", "gz"),
    (b"\0\0\0\x0cjP  ", "jp2"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One sample to be written.

    Attributes:
        id: as its source calls it.
        split: that it belongs to.
        name: of its files: the id where that can be one.
        files: content of its files by field.
        endings: of the files by field, without a dot.
        values: texts and numbers by field.
    """

    id: str
    split: str
    name: str
    files: Mapping[str, bytes]
    endings: Mapping[str, str]
    values: Mapping[str, str | int | float] = field(default_factory=dict[str, str | int | float])


def entries_of(data: Source | SegmentationDataset, *, splits: Sequence[str] | None) -> Iterator[Entry]:
    """The samples of a source or a dataset, split by split.

    Args:
        data: a source is set up where it was not.
        splits: which, in this order. None: all. A source that tells no splits is one: ``train``, or what is named here.

    Yields:
        One after the other, nothing decoded.

    Raises:
        ValueError: if there is no such split, nothing at all, or two samples of a split have one id.
        DatasetError: if files of a dataset are absent or unreadable.
        StorageError: if a source's bytes cannot be had.
        SampleFormatError: if they are not what they should be.
    """
    seen: set[tuple[str, str]] = set()
    found = _of_dataset(data, splits) if isinstance(data, SegmentationDataset) else _of_source(data, splits)
    for entry in found:
        if (entry.split, entry.name) in seen:
            raise ValueError(f"two samples of {entry.split!r} have the id {entry.id!r}")
        seen.add((entry.split, entry.name))
        yield entry
    if not seen:
        raise ValueError("there is no sample to convert")


def file_name(identifier: str) -> str:
    """An id as the name of a file: letters, digits, ``_`` and ``-``; a changed one is told from others by its hash.

    Example:
        >>> file_name("21_training"), file_name("part-0:../7.png")
        ('21_training', 'part-0-7-png-b3249a7a')
    """
    kept = re.sub(r"[^A-Za-z0-9_]+", "-", identifier).strip("-") or "sample"
    if re.fullmatch(r"[A-Za-z0-9_-]+", identifier) and len(identifier) <= _LONGEST and not identifier.startswith("-"):
        return identifier
    digest = hashlib.blake2b(identifier.encode(), digest_size=4).hexdigest()
    return f"{kept[: _LONGEST - 9]}-{digest}"


def ending_of(content: bytes) -> str:
    """Ending that a file of this content has, ``bin`` where that is not known.

    Example:
        >>> ending_of(b"GIF89a"), ending_of(b"RIFF....WEBPVP8 "), ending_of(b"?")
        ('gif', 'webp', 'bin')
    """
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:8] == b"ftyp":
        return "mp4"
    if re.match(rb"P[1-6]\s", content):
        return {b"1": "pbm", b"4": "pbm", b"2": "pgm", b"5": "pgm"}.get(content[1:2], "ppm")
    return next((ending for magic, ending in _MAGIC if content.startswith(magic)), "bin")


def _of_dataset(data: SegmentationDataset, splits: Sequence[str] | None) -> Iterator[Entry]:
    for split in data.splits if splits is None else splits:
        # A name that is none is refused there, with the nearest one.
        for record in data.records(cast(Literal["train", "test"], split)):
            paths = _paths(record)
            yield Entry(
                id=record.id,
                split=split,
                name=file_name(record.id),
                files={name: path.read_bytes() for name, path in paths.items()},
                endings={name: _ending_of_path(path) for name, path in paths.items()},
                values={} if record.group is None else {"group": record.group},
            )


def _paths(record: Record) -> dict[str, Path]:
    paths = {"image": record.image, "mask": record.mask, "valid": record.valid, "second": record.second}
    return {name: path for name, path in paths.items() if path is not None}


def _ending_of_path(path: Path) -> str:
    """What a reader needs: of ``im0001.ah.ppm.gz`` the last two, else the last."""
    suffixes = path.name.lower().split(".")[1:]
    return ".".join(suffixes[-2:] if suffixes[-1] == "gz" else suffixes[-1:])


def _of_source(source: Source, splits: Sequence[str] | None) -> Iterator[Entry]:
    source.setup()
    table = source.table()
    if "split" in table.column_names:
        split_of = [str(name) for name in table.column("split").to_pylist()]
        chosen = list(dict.fromkeys(split_of)) if splits is None else list(splits)
        for name in chosen:
            if name not in split_of:
                near = difflib.get_close_matches(name, set(split_of), n=1, cutoff=0.0)
                raise ValueError(f"splits={list(splits or ())}: no {name!r}; nearest: {', '.join(map(repr, near))}")
    else:
        if splits is not None and len(splits) != 1:
            raise ValueError(f"splits={list(splits)}: {source.name!r} tells no splits: give the one that it is")
        chosen = ["train"] if splits is None else list(splits)
        split_of = chosen * len(source)
    for split in chosen:
        for index in (index for index, name in enumerate(split_of) if name == split):
            yield _of_sample(source, index, split)


def _of_sample(source: Source, index: int, split: str) -> Entry:
    sample = source.read(index)
    files: dict[str, bytes] = {}
    values: dict[str, str | int | float] = {}
    for name, value in sample.fields.items():
        _sort(name, value, files, values)
    endings = {name: ending_of(content) for name, content in files.items()}
    return Entry(id=sample.id, split=split, name=file_name(sample.id), files=files, endings=endings, values=values)


def _sort(name: str, value: Field, files: dict[str, bytes], values: dict[str, str | int | float]) -> None:
    if isinstance(value, bytes):
        files[name] = value
    else:
        values[name] = value
