"""Latents of images, encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import pyarrow as pa
import torch
from torch import Tensor

from neurotrain.data.cache.build import Build, BuildProgress, BuildReport, place_in_world
from neurotrain.data.cache.encoders import LatentEncoder
from neurotrain.data.cache.filling import EncodingStatistics, Filler, Work
from neurotrain.data.cache.keys import cache_key, canonical, content_hash, owner
from neurotrain.data.cache.preparation import Preparation
from neurotrain.data.cache.store import TensorCache
from neurotrain.data.sources.base import RawSample, Source

Identify = Literal["object", "content"]
"""What stands for a sample in its key; see :class:`LatentCache`."""


class CacheMissError(KeyError):
    """Something is not stored, and there is no encoder to make it."""

    def __str__(self) -> str:
        """The message, without the quotes of a key."""
        return str(self.args[0])


class LatentCache:
    """Latents by sample: looked up, or encoded in batches and stored.

    A key is a hash over the sample's identity, the encoder's fingerprint (taken once, when the cache is made), every
    setting of the preparation and the stored dtype: whatever changes, the old entry is not found.

    Args:
        cache: where they are stored; several caches may share one.
        encoder: makes what is missing; or its fingerprint alone, where entries are only looked up, as in the workers
            of a loader.
        prepare: sample to picture.
        dtype: to store floating-point tensors in; None: as the encoder gives them.
        batch_size: images of each call of the encoder.
        field: of the sample whose identity counts.
        identify: ``object``: the sample's URI with the etag or hash that its source tells, so that nothing has to be
            read to know a key (a file that moves is encoded again). ``content``: a hash of the field's bytes, which
            also knows a copy elsewhere. A source that tells no identity is always taken by content.

    Raises:
        ValueError: if a name or a number is not one of those.
    """

    def __init__(
        self,
        *,
        cache: TensorCache,
        encoder: LatentEncoder | str,
        prepare: Preparation,
        dtype: torch.dtype | None = None,
        batch_size: int = 8,
        field: str = "image",
        identify: Identify = "object",
    ) -> None:
        if identify not in get_args(Identify):
            raise ValueError(f"identify={identify!r}: one of {', '.join(get_args(Identify))}")
        self.cache = cache
        self.prepare = prepare
        self.dtype = dtype
        self.batch_size = batch_size
        self.field = field
        self.identify: Identify = identify
        self.fingerprint = encoder if isinstance(encoder, str) else encoder.fingerprint()
        self._recipe = canonical({"prepare": prepare.settings(), "dtype": str(dtype), "field": field})
        self._encoder = None if isinstance(encoder, str) else encoder
        self._filler = Filler(cache=cache, encode=self._encode, alike=_shape, batch_size=batch_size, dtype=dtype)

    @property
    def statistics(self) -> EncodingStatistics:
        """What was encoded; hits and misses are in ``cache.statistics``."""
        return self._filler.statistics

    def lookup_only(self) -> LatentCache:
        """The same cache without the encoder: light enough for every worker of a loader."""
        return LatentCache(
            cache=self.cache,
            encoder=self.fingerprint,
            prepare=self.prepare,
            dtype=self.dtype,
            batch_size=self.batch_size,
            field=self.field,
            identify=self.identify,
        )

    def key(self, sample: RawSample) -> bytes:
        """Key of a sample.

        Raises:
            ValueError: if it has neither an identity nor the field.
        """
        identity = sample.identity.get(self.field)
        if self.identify == "object" and identity is not None:
            return self._object_key(sample.uri, identity)
        content = sample.fields.get(self.field)
        if content is None:
            raise ValueError(f"{sample.uri}: no field {self.field!r} to know it by, only {sorted(sample.fields)}")
        told = content if isinstance(content, (bytes, str)) else repr(content)
        return cache_key("latent-1", self.fingerprint, self._recipe, "content", content_hash(told))

    def get(self, sample: RawSample) -> dict[str, Tensor] | None:
        """What is stored for a sample, or None; see :func:`~neurotrain.data.cache.encoders.draw_latent` for its use."""
        return self.cache.get(self.key(sample))

    def fetch(self, samples: Sequence[RawSample]) -> list[dict[str, Tensor]]:
        """The entries of samples; what is missing is encoded and stored.

        Args:
            samples: any number.

        Returns:
            One dictionary a sample, own memory.

        Raises:
            CacheMissError: if one is missing and there is no encoder.
            SampleFormatError: if one that is missing cannot be decoded.
            EncodeError: if the encoder's result for one is not finite.
        """
        keys = [self.key(sample) for sample in samples]
        found = [self.cache.get(key) for key in keys]
        missing = {key: sample for key, sample, entry in zip(keys, samples, found, strict=True) if entry is None}
        if missing and self._encoder is None:
            names = ", ".join(sample.uri for sample in list(missing.values())[:3])
            raise CacheMissError(f"{len(missing)} of {len(samples)} samples are not cached, first {names}: build first")
        made = self._filler.fill(Work(key, self.prepare(sample), sample.uri) for key, sample in missing.items())
        # Of copies within one batch each gets memory of its own.
        fresh = [made.pop(key, None) if entry is None else entry for key, entry in zip(keys, found, strict=True)]
        made = {key: entry for key, entry in zip(keys, fresh, strict=True) if entry is not None}
        return [_copied(made[key]) if entry is None else entry for key, entry in zip(keys, fresh, strict=True)]

    def build(
        self,
        source: Source,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        threads: int = 4,
        max_bad_share: float = 0.01,
        progress: Callable[[BuildProgress], None] | None = None,
    ) -> BuildReport:
        """Encode and store a source ahead of time; entries that are there are left alone.

        Ranks share the work by the hash of the samples' ids; processes that know nothing of each other share it too,
        by claims. Killed at any moment and started again, it goes on with what is missing.

        Args:
            source: after its ``setup``.
            rank: of this process; None: of the environment that ``torchrun`` makes.
            world_size: number of processes; None: likewise.
            threads: that read and decode.
            max_bad_share: of this rank's samples that may fail before the build stops, in [0, 1].
            progress: called about once a second.

        Returns:
            Counts.

        Raises:
            BuildError: lists samples, if too many fail.
            CacheFullError: if there is no room.
            CacheMissError: if there is no encoder.
        """
        if self._encoder is None:
            raise CacheMissError("a build needs an encoder, this cache has its fingerprint only")
        rank, world_size = place_in_world(rank, world_size)
        table = source.table()
        ids: list[str] = table.column("id").to_pylist()
        share = [index for index, name in enumerate(ids) if owner(name, world_size=world_size) == rank]
        build = Build(
            filler=self._filler,
            share=share,
            load=_Loading(self, source, table),
            name=lambda index: f"{source.name}/{ids[index]}",
            total=len(ids),
            threads=threads,
            max_bad_share=max_bad_share,
            progress=progress,
        )
        return build.run()

    def live_keys(self, source: Source) -> set[bytes]:
        """Keys that a source needs of this cache now, for :func:`~neurotrain.data.cache.maintenance.gc`.

        Samples are read only where the index does not tell their key.
        """
        keys = _Loading(self, source, source.table())
        return {keys.key(index) for index in range(len(source))}

    def _object_key(self, uri: str, identity: str) -> bytes:
        return cache_key("latent-1", self.fingerprint, self._recipe, "object", uri, identity)

    def _encode(self, images: list[Tensor]) -> dict[str, Tensor]:
        assert self._encoder is not None, "callers have looked"
        return dict(self._encoder.encode(torch.stack(images)))

    def told_key(self, uri: object, etag: object) -> bytes | None:
        """The key that a row of an index tells, if it tells one; it counts only where there is an entry under it."""
        if self.identify == "object" and isinstance(uri, str) and isinstance(etag, str):
            return self._object_key(uri, etag)
        return None


class _Loading:
    """Rows of a source to work for a build; a row whose entry is there is not read."""

    def __init__(self, latents: LatentCache, source: Source, table: pa.Table) -> None:
        self._latents, self._source = latents, source
        told = {"uri", "etag"} <= set(table.column_names)
        self._uri = table.column("uri") if told else None
        self._etag = table.column("etag") if told else None

    def __call__(self, index: int) -> Work[Tensor] | bytes:
        told = self._told(index)
        if told is not None:
            return told
        sample = self._source.read(index)
        key = self._latents.key(sample)
        if key in self._latents.cache:
            return key
        return Work(key, self._latents.prepare(sample), sample.uri)

    def key(self, index: int) -> bytes:
        """Key of a row."""
        return self._told(index) or self._latents.key(self._source.read(index))

    def _told(self, index: int) -> bytes | None:
        if self._uri is None or self._etag is None:
            return None
        key = self._latents.told_key(self._uri[index].as_py(), self._etag[index].as_py())
        # A guess: the source may identify the field otherwise. An entry under it proves it right.
        return key if key is not None and key in self._latents.cache else None


def _copied(entry: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in entry.items()}


def _shape(image: Tensor) -> tuple[int, ...]:
    return tuple(image.shape)
