"""What sources share whose samples are told by a pattern of keys."""

from __future__ import annotations

from abc import abstractmethod
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


class PairedSource(IndexedSource):
    """Samples whose files are paired by their keys, with captions and labels.

    Args:
        name: of the source.
        storage: holds the files.
        patterns: of each field's files, the samples' own first.
        captions: where captions come from; None: there are none.
        classes: names of the labels, in their order; None: those that are found, sorted.
        index_dir: folder of the index; None: it is built at each start and kept in memory.
        refresh: list the storage at each start.
        dimensions: read each new image's header.
        threads: objects that are read at once while the index is built.

    Raises:
        SourceError: lists patterns that hold a place that the first one has not.
    """

    def __init__(
        self,
        *,
        name: str,
        storage: Storage,
        patterns: Mapping[str, KeyPattern],
        captions: Captions | None,
        classes: Sequence[str] | None,
        index_dir: Path | None,
        refresh: bool,
        dimensions: bool,
        threads: int,
    ) -> None:
        super().__init__(
            name=name, storage=storage, index_dir=index_dir, refresh=refresh, dimensions=dimensions, threads=threads
        )
        self._patterns = dict(patterns)
        self._captions = captions
        self._classes = None if classes is None else tuple(classes)
        # Texts are paired like files, and read while the index is built.
        self._texts = {} if captions is None else captions.patterns(self._patterns[self.first])
        self._check()

    @property
    @abstractmethod
    def fields(self) -> tuple[str, ...]:
        """The samples' own field and what is paired with it."""
        return tuple(self._patterns)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels, in their order; empty where the pattern has no ``{label}``.

        Raises:
            RuntimeError: before :meth:`setup`, where they are to be found.
        """
        if "label" not in self._patterns[self.first].places:
            return ()
        return self._classes or tuple(sorted(self.table().column("label_name").unique().to_pylist()))

    def _settings(self) -> dict[str, Any]:
        return {
            "patterns": {field: pattern.text for field, pattern in (self._patterns | self._texts).items()},
            "captions": None if self._captions is None else self._captions.settings(),
            "classes": self._classes,
        }

    def _listing(self) -> pa.Table:
        prefixes = self._prefixes()
        # An object that is read as a whole (a table of captions) counts like those that are listed.
        objects = [] if self._captions is None else list(self._captions.objects(self.storage))
        apart = [info for info in objects if not any(info.key.startswith(prefix) for prefix in prefixes)]
        return pa.concat_tables([*(listing_table(self.storage.list(one)) for one in prefixes), listing_table(apart)])

    def _prefixes(self) -> tuple[str, ...]:
        """What to list."""
        return covering_prefixes((self._patterns | self._texts).values())

    def _build(self, listing: pa.Table, previous: pa.Table | None) -> pa.Table:
        subject = f"source {self.name!r} ({self.storage.uri})"
        table = pair_files(listing, self._patterns | self._texts, subject=subject, optional=self._texts)
        if "label" in table.column_names:
            table = labelled(table, classes=self._classes, subject=subject)
        if self._captions is None:
            return table
        texts = caption_column(
            self._captions, table, previous, storage=self.storage, threads=self.threads, subject=subject
        )
        return table.append_column("caption", texts)

    def _check(self) -> None:
        own = self._patterns[self.first]
        problems = [
            f"{field}={pattern.text!r}: {{{place}}} is not in {self.first}={own.text!r}"
            for field, pattern in (self._patterns | self._texts).items()
            for place in pattern.places
            if place not in own.places
        ]
        if self._classes is not None and "label" not in own.places:
            problems.append(f"classes={self._classes!r} has no effect: {self.first}={own.text!r} has no {{label}}")
        if problems:
            raise SourceError(f"source {self.name!r}", problems)
