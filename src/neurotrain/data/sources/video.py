"""Clips of a storage: one file each, or one folder of frames each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from neurotrain.data.sources.base import Field, RawSample
from neurotrain.data.sources.captions import Captions
from neurotrain.data.sources.indexed import checked_size
from neurotrain.data.sources.paired import PairedSource
from neurotrain.data.sources.patterns import KeyPattern, covering_prefixes
from neurotrain.storage.base import Storage

_KEYS, _SIZES = "frame_keys", "frame_sizes"
_KEYS_FIELD = pa.field(_KEYS, pa.list_(pa.string()))
_SIZES_FIELD = pa.field(_SIZES, pa.list_(pa.int64()))
_VALUES = ("caption", "label", "label_name", "split")


class VideoSource(PairedSource):
    """Clips.

    ``{id}.gif`` takes each file (GIF, WebP, npy, mp4) as a clip, field ``video``. ``{id}/{frame}{ext}`` takes each
    folder of images as one, in the order of the numbers in their names: fields ``video/000000``, ``video/000001``, ...

    Args:
        name: of the source.
        storage: holds the files.
        video: pattern of the clips, see :class:`~neurotrain.data.sources.patterns.KeyPattern`; with ``{label}`` and
            ``{split}`` as for images.
        captions: where captions come from; a folder of frames has the text ``<folder>.txt``, and in tables its name.
        classes: names of the labels, in their order; None: those that are found, sorted.
        index_dir: folder of the index; None: it is built at each start and kept in memory.
        refresh: list the storage at each start; see :class:`~neurotrain.data.sources.indexed.IndexedSource`.
        dimensions: read the header of each new file, or first frame, for ``width`` and ``height`` (and ``frames`` of a
            file); of images only.
        threads: objects that are read at once while the index is built.

    Raises:
        ValueError: if the pattern cannot be read.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> storage = MemoryStorage(name="video-example")
        >>> for key in ("walk/9.png", "walk/10.png", "run/1.png"):
        ...     _ = storage.write(key, key.encode())
        >>> source = VideoSource(name="toy", storage=storage, video="{id}/{frame}{ext}")
        >>> source.setup()
        >>> dict(source.read(1).fields)
        {'video/000000': b'walk/9.png', 'video/000001': b'walk/10.png'}
    """

    first = "video"

    def __init__(
        self,
        *,
        name: str,
        storage: Storage,
        video: str = "{id}.gif",
        captions: Captions | None = None,
        classes: Sequence[str] | None = None,
        index_dir: Path | None = None,
        refresh: bool = True,
        dimensions: bool = False,
        threads: int = 8,
    ) -> None:
        pattern = KeyPattern(video, key="video")
        self._frames = pattern if "frame" in pattern.places else None
        if self._frames is not None:
            # The clip is the folder: what is paired with it is named like that.
            folder, _, last = pattern.text.rpartition("/")
            if "{id}" not in folder or "{frame}" not in last or "{frame}" in folder:
                raise ValueError(f"video={video!r}: {{frame}} belongs into the file's name, {{id}} into a folder's")
            pattern = KeyPattern(folder, key="video")
        super().__init__(
            name=name,
            storage=storage,
            patterns={"video": pattern},
            captions=captions,
            classes=classes,
            index_dir=index_dir,
            refresh=refresh,
            dimensions=dimensions,
            threads=threads,
        )

    def read(self, index: int) -> RawSample:
        """Fetch a clip; of a folder every frame."""
        if self._frames is None:
            return super().read(index)
        if not 0 <= index < len(self):
            raise IndexError(f"entry {index} of {len(self)}")
        row: dict[str, Any] = self.table().slice(index, 1).to_pylist()[0]
        fields: dict[str, Field] = {}
        frames = zip(row[_KEYS], row[_SIZES], self.storage.read_many(row[_KEYS]), strict=True)
        for number, (key, size, data) in enumerate(frames):
            if not isinstance(data, bytes):
                raise data
            fields[f"video/{number:06}"] = checked_size(data, size, self.storage.uri_of(key))
        values = {name: row[name] for name in _VALUES if row.get(name) is not None}
        identity = {} if row["etag"] is None else {"video": row["etag"]}
        return RawSample(id=row["id"], source=self.name, uri=row["uri"], fields={**fields, **values}, identity=identity)

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "frames": None if self._frames is None else self._frames.text}

    def _prefixes(self) -> tuple[str, ...]:
        own = self._frames or self._patterns["video"]
        return covering_prefixes((own, *self._texts.values()))

    def _build(self, listing: pa.Table, previous: pa.Table | None) -> pa.Table:
        if self._frames is None:
            return super()._build(listing, previous)
        clips = _clips(listing, self._frames)
        keys = listing.column("key").to_pylist()
        texts = [any(pattern.match(key) for pattern in self._texts.values()) for key in keys]
        paired = pa.concat_tables([clips.select(listing.column_names), listing.filter(pa.array(texts, pa.bool_()))])
        table = super()._build(paired, previous)
        rows = {key: row for row, key in enumerate(clips.column("key").to_pylist())}
        chosen = clips.take(pa.array([rows[key] for key in table.column("key").to_pylist()], pa.int64()))
        keys = chosen.column(_KEYS)
        firsts = pa.array([names[0] for names in keys.to_pylist()], pa.string())
        table = table.set_column(table.column_names.index("key"), "key", firsts)
        table = table.append_column("frames", pa.array([len(names) for names in keys.to_pylist()], pa.int64()))
        return table.append_column(_KEYS, keys).append_column(_SIZES, chosen.column(_SIZES))

    @property
    def fields(self) -> tuple[str, ...]:
        """``video`` and what is paired with it."""
        return super().fields


def _clips(listing: pa.Table, pattern: KeyPattern) -> pa.Table:
    """A listing of the folders that hold frames, with the keys and sizes of these in their order."""
    folders: dict[str, list[dict[str, Any]]] = {}
    for row in listing.to_pylist():
        if pattern.match(row["key"]) is not None:
            folders.setdefault(row["key"].rpartition("/")[0], []).append(row)
    clips: list[dict[str, Any]] = []
    for folder, rows in sorted(folders.items()):
        rows.sort(key=lambda row: _natural(row["key"]))
        etags, sizes = [row["etag"] for row in rows], [row["size"] for row in rows]
        times = [row["modified"] for row in rows if row["modified"] is not None]
        whole = None if None in etags else hashlib.blake2b("\n".join(etags).encode(), digest_size=16).hexdigest()
        clips.append(
            {
                "key": folder,
                "size": None if None in sizes else sum(sizes),
                "etag": whole,
                "modified": max(times, default=None),
                _KEYS: [row["key"] for row in rows],
                _SIZES: sizes,
            }
        )
    return pa.Table.from_pylist(clips, schema=listing.schema.append(_KEYS_FIELD).append(_SIZES_FIELD))


def _natural(key: str) -> list[tuple[int, str]]:
    """Order in which 10 comes after 9."""
    parts = re.split(r"(\d+)", key.rpartition("/")[2])
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
