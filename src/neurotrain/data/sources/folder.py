"""A folder of files, local or in a bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from neurotrain.data.index import listing_table
from neurotrain.data.sources.base import SourceError
from neurotrain.data.sources.captions import Captions, caption_column
from neurotrain.data.sources.indexed import IndexedSource
from neurotrain.data.sources.labels import labelled
from neurotrain.data.sources.pairing import pair_files
from neurotrain.data.sources.patterns import KeyPattern, covering_prefixes
from neurotrain.storage.base import Storage


class FolderSource(IndexedSource):
    """Image files of a storage, with the files and texts that belong to each.

    Patterns are those of :class:`~neurotrain.data.sources.patterns.KeyPattern`: ``images`` is a folder whose files are
    paired with those of other folders by their stem; ``{split}/images/{id}_photo.tif`` says more. A ``{label}`` in
    ``image`` gives labels, a ``{split}`` the column of that name.

    Args:
        name: of the source.
        storage: holds the files.
        image: pattern of the images.
        mask: pattern of their label masks; by label name for multilabel masks, which become fields ``mask/<name>``.
        valid: pattern of their validity masks.
        conditioning: patterns of further files by name (``control``, ``reference``, ...), which become fields
            ``conditioning/<name>``.
        captions: where captions come from; None: there are none.
        classes: names of the labels, in their order; None: those that are found, sorted.
        index_dir: folder of the index; None: it is built at each start and kept in memory.
        refresh: list the storage at each start; see :class:`~neurotrain.data.sources.indexed.IndexedSource`.
        dimensions: read each new image's header for ``width``, ``height`` and ``frames``.
        threads: objects that are read at once while the index is built.

    Raises:
        ValueError: if a pattern cannot be read, or holds a place that ``image`` has not.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> storage = MemoryStorage(name="folder-example")
        >>> for key in ("images/a.png", "images/b.png", "masks/a.gif", "masks/b.gif"):
        ...     _ = storage.write(key, key.encode())
        >>> source = FolderSource(name="toy", storage=storage, image="images", mask="masks")
        >>> source.setup()
        >>> source.read(1).id, sorted(source.read(1).fields)
        ('b', ['image', 'mask'])
    """

    def __init__(
        self,
        *,
        name: str,
        storage: Storage,
        image: str = "{id}{ext}",
        mask: str | Mapping[str, str] | None = None,
        valid: str | None = None,
        conditioning: Mapping[str, str] | None = None,
        captions: Captions | None = None,
        classes: Sequence[str] | None = None,
        index_dir: Path | None = None,
        refresh: bool = True,
        dimensions: bool = False,
        threads: int = 8,
    ) -> None:
        super().__init__(
            name=name, storage=storage, index_dir=index_dir, refresh=refresh, dimensions=dimensions, threads=threads
        )
        masks = mask if isinstance(mask, Mapping) else {"": mask}
        texts = {
            "image": image,
            **{f"mask/{label}" if label else "mask": text for label, text in masks.items()},
            "valid": valid,
            **{f"conditioning/{key}": text for key, text in (conditioning or {}).items()},
        }
        self._patterns = {
            field: KeyPattern(text, key=field, places=("id", "label", "split"))
            for field, text in texts.items()
            if text is not None
        }
        self._captions = captions
        self._classes = None if classes is None else tuple(classes)
        self._all_patterns = self._patterns | (captions.patterns(self._patterns["image"]) if captions else {})
        self._check()

    @property
    def fields(self) -> tuple[str, ...]:
        """``image`` and what is paired with it."""
        return tuple(self._patterns)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels, in their order; empty where the pattern has no ``{label}``.

        Raises:
            RuntimeError: before :meth:`setup`, where they are to be found.
        """
        if "label" not in self._patterns["image"].places:
            return ()
        return self._classes or tuple(sorted(set(self.table().column("label_name").to_pylist())))

    def _settings(self) -> dict[str, Any]:
        return {
            "patterns": {field: pattern.text for field, pattern in self._all_patterns.items()},
            "captions": None if self._captions is None else self._captions.settings(),
            "classes": self._classes,
        }

    def _listing(self) -> pa.Table:
        prefixes = covering_prefixes(self._all_patterns.values())
        # An object that is read as a whole (a table of captions) counts like those that are listed.
        objects = [] if self._captions is None else list(self._captions.objects(self.storage))
        tables = [listing_table(self.storage.list(prefix)) for prefix in prefixes]
        known = {info.key for info in objects if any(info.key.startswith(prefix) for prefix in prefixes)}
        return pa.concat_tables([*tables, listing_table(info for info in objects if info.key not in known)])

    def _build(self, listing: pa.Table, previous: pa.Table | None) -> pa.Table:
        subject = f"source {self.name!r} ({self.storage.uri})"
        optional = self._all_patterns.keys() - self._patterns.keys()
        table = pair_files(listing, self._all_patterns, subject=subject, optional=optional)
        if "label" in table.column_names:
            table = labelled(table, classes=self._classes, subject=subject)
        if self._captions is not None:
            texts = caption_column(
                self._captions, table, previous, storage=self.storage, threads=self.threads, subject=subject
            )
            table = table.append_column("caption", texts)
        return table

    def _check(self) -> None:
        places = self._patterns["image"].places
        problems = [
            f"{field}={pattern.text!r}: {{{place}}} is not in image={self._patterns['image'].text!r}"
            for field, pattern in self._all_patterns.items()
            for place in pattern.places
            if place not in places
        ]
        if self._classes is not None and "label" not in places:
            problems.append(f"classes={self._classes!r} has no effect: image={self._patterns['image'].text!r}")
        if problems:
            raise SourceError(f"source {self.name!r}", problems)
