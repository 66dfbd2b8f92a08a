"""Loaders over a source whose samples come out of caches; what is stored is not read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import torch

from neurotrain.batch import LatentSample
from neurotrain.data.cached.decoder import CachedDecoder
from neurotrain.data.cached.picture import CroppedPicture
from neurotrain.data.members import shape_buckets
from neurotrain.data.mixture import Buckets
from neurotrain.data.parts import SourcePart, Step
from neurotrain.data.source_modules import SourceDataModule
from neurotrain.data.sources import RawSample, Source


class CachedPart(SourcePart[LatentSample]):
    """Entries of a source through their caches; one whose index tells its key is not read from storage.

    Args:
        source: set up.
        decoder: looks up.
        prepare: deterministic first transform; None: nothing.
        rows: which entries, in this order; None: all.
        cache_bytes: memory for prepared samples.

    Raises:
        ValueError: see :class:`~neurotrain.data.parts.Part`.
    """

    def __init__(
        self,
        *,
        source: Source,
        decoder: CachedDecoder,
        prepare: Step[LatentSample] | None = None,
        rows: Any = None,  # noqa: ANN401 - as of SourcePart
        cache_bytes: int = 0,
    ) -> None:
        super().__init__(source=source, decoder=decoder, prepare=prepare, rows=rows, cache_bytes=cache_bytes)
        decoder.open()
        self.decoder = decoder
        self._told = _Told(source, decoder) if decoder.needs_only_index else None

    def counters(self) -> Mapping[str, int]:
        """What is in memory, and hits and misses of the caches."""
        found = {
            f"{self.name}/{cache}_{what}": count
            for cache, statistics in self.decoder.statistics().items()
            for what, count in (("hits", statistics.hits), ("misses", statistics.misses))
        }
        return {**super().counters(), **found}

    def _decode(self, index: int, generator: torch.Generator) -> LatentSample:
        row = self._row(index)
        raw = None if self._told is None else self._told.sample(row)
        if raw is not None:
            assert self.decoder.latents is not None, "rows tell keys of latents"
            entry = self.decoder.latents.latents.get(raw)
            if entry is not None:
                return self.decoder.assemble(raw, entry, generator)
        return super()._decode(index, generator)


class CachedDataModule(SourceDataModule):
    """Any source through caches of latents and text embeddings; its decoder is a ``CachedDecoder``.

    ``neurotrain cache build NAME`` fills the caches before training; see
    :class:`~neurotrain.data.cached.decoder.CachedDecoder` for what happens where something is missing.
    """

    def buckets(self) -> Buckets | None:
        """By the targets of a preparation that keeps aspects; needs widths and heights in the index."""
        latents = self._decoder.latents if isinstance(self._decoder, CachedDecoder) else None
        if latents is None or not isinstance(latents.prepare, CroppedPicture):
            return None
        preparation = latents.prepare.preparation
        if preparation.aspect == "square":
            return None
        return shape_buckets(self.training().parts[0].table(), preparation.target, name=self.title)

    def _part(self, source: Source, rows: Any) -> CachedPart:  # noqa: ANN401 - of split_rows
        if not isinstance(self._decoder, CachedDecoder):
            name = type(self._decoder).__name__
            raise TypeError(f"decoder={name}: CachedDataModule is for CachedDecoder; others need SourceDataModule")
        return CachedPart(
            source=source, decoder=self._decoder, prepare=self._prepare, rows=rows, cache_bytes=self._cache_bytes
        )


class _Told:
    """What a source's index tells of samples, as samples without their image."""

    def __init__(self, source: Source, decoder: CachedDecoder) -> None:
        table = source.table()
        self._name = source.name
        self._latents = decoder.latents
        self._ids = table.column("id")
        self._uris, self._etags = _column(table, "uri"), _column(table, "etag")
        self._captions = None if decoder.texts is None else _column(table, "caption")
        self._tells = self._uris is not None and self._etags is not None
        if decoder.texts is not None and self._captions is None:
            self._tells = False

    def sample(self, row: int) -> RawSample | None:
        """A row whose latent is stored under the key that it tells; None where it must be read."""
        if not self._tells:
            return None
        assert self._latents is not None
        assert self._uris is not None
        assert self._etags is not None
        uri, etag = self._uris[row].as_py(), self._etags[row].as_py()
        if not self._latents.told(uri, etag):
            return None
        caption = None if self._captions is None else self._captions[row].as_py()
        if self._captions is not None and not isinstance(caption, str):
            return None
        return RawSample(
            id=self._ids[row].as_py(),
            source=self._name,
            uri=uri,
            fields={} if caption is None else {"caption": caption},
            identity={self._latents.field: etag},
        )


def _column(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    return table.column(name) if name in table.column_names else None
