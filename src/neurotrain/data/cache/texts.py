"""Embeddings of texts, encoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from neurotrain.data.cache.build import Build, BuildProgress, BuildReport, place_in_world
from neurotrain.data.cache.encoders import TextEncoder
from neurotrain.data.cache.filling import EncodingStatistics, Filler, Work
from neurotrain.data.cache.keys import Settings, cache_key, canonical, owner
from neurotrain.data.cache.latents import CacheMissError
from neurotrain.data.cache.store import TensorCache
from neurotrain.data.sources.base import Source

EMPTY = ""
"""The caption of a sample whose caption was dropped; it has an entry of its own."""


class TextEmbeddingCache:
    """Embeddings by text: looked up, or encoded in batches and stored.

    A key is a hash over the text itself, the encoder's fingerprint (taken once, when the cache is made), every setting
    and the stored dtype.

    Args:
        cache: where they are stored; several caches may share one.
        encoder: makes what is missing; or its fingerprint alone, where entries are only looked up.
        settings: what else decides an embedding and the fingerprint does not tell, for instance a prompt template.
        dtype: to store floating-point tensors in; None: as the encoder gives them.
        batch_size: texts of each call of the encoder.
    """

    def __init__(
        self,
        *,
        cache: TensorCache,
        encoder: TextEncoder | str,
        settings: Settings | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int = 16,
    ) -> None:
        self.cache = cache
        self.settings = dict(settings or {})
        self.dtype = dtype
        self.batch_size = batch_size
        self.fingerprint = encoder if isinstance(encoder, str) else encoder.fingerprint()
        self._recipe = canonical({"settings": self.settings, "dtype": str(dtype)})
        self._encoder = None if isinstance(encoder, str) else encoder
        self._filler = Filler[str](cache=cache, encode=self._encode, alike=_same, batch_size=batch_size, dtype=dtype)

    @property
    def statistics(self) -> EncodingStatistics:
        """What was encoded; hits and misses are in ``cache.statistics``."""
        return self._filler.statistics

    def lookup_only(self) -> TextEmbeddingCache:
        """The same cache without the encoder: light enough for every worker of a loader."""
        return TextEmbeddingCache(
            cache=self.cache,
            encoder=self.fingerprint,
            settings=self.settings,
            dtype=self.dtype,
            batch_size=self.batch_size,
        )

    def key(self, text: str) -> bytes:
        """Key of a text."""
        return cache_key("text-1", self.fingerprint, self._recipe, text)

    def get(self, text: str) -> dict[str, Tensor] | None:
        """What is stored for a text, or None."""
        return self.cache.get(self.key(text))

    def fetch(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        """The entries of texts; what is missing is encoded and stored.

        Args:
            texts: any number; see :func:`drop_captions` for classifier-free guidance.

        Returns:
            One dictionary a text, own memory.

        Raises:
            CacheMissError: if one is missing and there is no encoder.
            EncodeError: if the encoder's result for one is not finite.
        """
        distinct = {text: self.get(text) for text in dict.fromkeys(texts)}
        missing = [text for text, entry in distinct.items() if entry is None]
        if missing and self._encoder is None:
            raise CacheMissError(f"{len(missing)} of {len(distinct)} texts are not cached, first {missing[0]!r}")
        made = self._filler.fill(Work(self.key(text), text, repr(text)) for text in missing)
        found = {text: made[self.key(text)] if entry is None else entry for text, entry in distinct.items()}
        seen: set[str] = set()
        return [_own(found[text], again=text in seen or seen.add(text) is not None) for text in texts]

    def build(
        self,
        source: Source | Iterable[str],
        *,
        field: str = "caption",
        rank: int | None = None,
        world_size: int | None = None,
        max_bad_share: float = 0.0,
        progress: Callable[[BuildProgress], None] | None = None,
    ) -> BuildReport:
        """Encode and store every caption of a source ahead of time, and the empty one.

        Args:
            source: after its ``setup``; or texts.
            field: of the source's samples.
            rank: of this process; None: of the environment that ``torchrun`` makes.
            world_size: number of processes; None: likewise.
            max_bad_share: of this rank's texts whose embedding may be refused before the build stops, in [0, 1].
            progress: called about once a second.

        Returns:
            Counts of distinct texts.

        Raises:
            BuildError: lists texts, if too many fail.
            CacheFullError: if there is no room.
            CacheMissError: if there is no encoder.
        """
        if self._encoder is None:
            raise CacheMissError("a build needs an encoder, this cache has its fingerprint only")
        rank, world_size = place_in_world(rank, world_size)
        texts = self._texts(source, field)
        build = Build(
            filler=self._filler,
            share=[index for index, text in enumerate(texts) if owner(text, world_size=world_size) == rank],
            load=lambda index: self._work(texts[index]),
            name=lambda index: repr(texts[index]),
            total=len(texts),
            threads=1,
            max_bad_share=max_bad_share,
            progress=progress,
        )
        return build.run()

    def live_keys(self, source: Source | Iterable[str], *, field: str = "caption") -> set[bytes]:
        """Keys that a source needs of this cache now, the empty caption's included."""
        return {self.key(text) for text in self._texts(source, field)}

    def _texts(self, source: Source | Iterable[str], field: str) -> list[str]:
        texts = captions_of(source, field=field) if isinstance(source, Source) else source
        return list(dict.fromkeys([EMPTY, *texts]))

    def _work(self, text: str) -> Work[str] | bytes:
        key = self.key(text)
        return key if key in self.cache else Work(key, text, repr(text))

    def _encode(self, texts: list[str]) -> Mapping[str, Tensor]:
        assert self._encoder is not None, "callers have looked"
        return self._encoder.encode(texts)


def captions_of(source: Source, *, field: str = "caption") -> Iterable[str]:
    """Texts of a source: out of its index where that has them all, otherwise out of its samples.

    Raises:
        ValueError: names a sample without one.
    """
    table = source.table()
    if field in table.column_names and table.column(field).null_count == 0:
        yield from (str(text) for text in table.column(field).to_pylist())
        return
    for index in range(len(source)):
        sample = source.read(index)
        text = sample.fields.get(field)
        if not isinstance(text, str):
            raise ValueError(f"{sample.uri}: no text in field {field!r}, only {sorted(sample.fields)}")
        yield text


def drop_captions(texts: Sequence[str], *, probability: float, generators: Sequence[torch.Generator]) -> list[str]:
    """Replace some captions by the empty one, each by a draw of its sample's own generator.

    Args:
        texts: captions of a batch.
        probability: of each to be dropped, in [0, 1].
        generators: one a caption.

    Returns:
        As many texts.

    Raises:
        ValueError: if the probability is none, or the numbers differ.

    Reference:
        Ho and Salimans, 2022 (arXiv:2207.12598), algorithm 1.

    Example:
        >>> drop_captions(["a cat"], probability=1.0, generators=[torch.Generator()])
        ['']
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability={probability}: from 0 to 1")
    draws = [float(torch.rand((), generator=generator)) for generator in generators]
    return [EMPTY if draw < probability else text for text, draw in zip(texts, draws, strict=True)]


def _same(text: str) -> None:
    del text  # any texts share a batch


def _own(entry: dict[str, Tensor], *, again: bool) -> dict[str, Tensor]:
    """Memory of its own for a text that occurs twice in a batch."""
    return {name: tensor.clone() for name, tensor in entry.items()} if again else entry
