"""The embeddings of captions, looked up where a loader's workers are, encoded elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor

from neurotrain.data.cache import TensorCache, TextEmbeddingCache, TextEncoder, captions_of, drop_captions
from neurotrain.data.cached.latents import NotCachedError, StoredType, advice, dtype_of, may_encode
from neurotrain.data.decoders.image import CaptionChoice, chosen_caption
from neurotrain.data.sources import RawSample, Source


class CachedTexts:
    """Embeddings of captions out of a cache; see :class:`~neurotrain.data.cache.texts.TextEmbeddingCache`.

    Pickled, it goes without its encoder.

    Args:
        cache: where they are stored; latents may lie in the same one.
        encoder: makes what is missing; or its fingerprint alone, where nothing is ever encoded.
        settings: what else decides an embedding and the encoder does not tell.
        store_as: type of what is stored; None: as the encoder gives it.
        batch_size: texts of each call of the encoder.
        choice: which of several captions is taken, with the sample's own random numbers.
        dropout: share of the visits that see the empty caption, for guidance without a classifier.

    Raises:
        ValueError: if a name is not one of those, or ``dropout`` is no share.

    Reference:
        Ho and Salimans, 2022 (arXiv:2207.12598), algorithm 1.
    """

    def __init__(
        self,
        *,
        cache: TensorCache,
        encoder: TextEncoder | str,
        settings: Mapping[str, str | int | float | bool] | None = None,
        store_as: StoredType | None = None,
        batch_size: int = 16,
        choice: CaptionChoice = "random",
        dropout: float = 0.0,
    ) -> None:
        if choice not in get_args(CaptionChoice):
            raise ValueError(f"choice={choice!r}: one of {', '.join(map(repr, get_args(CaptionChoice)))}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout}: from 0 to 1")
        self.cache = cache
        self.choice: CaptionChoice = choice
        self.dropout = dropout
        self._encoder: TextEncoder | str = encoder
        self._settings = settings
        self._dtype = dtype_of(store_as)
        self._batch_size = batch_size

    @property
    def encodes(self) -> bool:
        """Whether there is an encoder."""
        return not isinstance(self._encoder, str)

    @property
    def deterministic(self) -> bool:
        """True where no caption is drawn or dropped."""
        return self.choice == "first" and self.dropout in (0.0, 1.0)

    @cached_property
    def embeddings(self) -> TextEmbeddingCache:
        """The cache with its encoder, opened at the first use."""
        return TextEmbeddingCache(
            cache=self.cache,
            encoder=self._encoder,
            settings=self._settings,
            dtype=self._dtype,
            batch_size=self._batch_size,
        )

    def caption(self, raw: RawSample, generator: torch.Generator) -> str:
        """The caption of a visit: chosen, then perhaps dropped.

        Raises:
            SampleFormatError: if there is none.
        """
        caption = chosen_caption(raw, self.choice, generator)
        if not self.dropout:
            return caption
        return drop_captions([caption], probability=self.dropout, generators=[generator])[0]

    def fields(self, caption: str, *, encode: bool) -> dict[str, Any]:
        """``caption``, and ``text_<name>`` for each tensor of its entry.

        Args:
            caption: empty for one that was dropped.
            encode: whether what is missing is encoded and stored, in a process that may.

        Raises:
            NotCachedError: if it is missing and this process must not encode.
            EncodeError: if the encoder's result is not finite.
        """
        entry = self.embeddings.get(caption)
        if entry is None:
            if not may_encode(encode):
                told = f"no embedding of the caption {caption!r} in {self.cache.path}"
                raise NotCachedError(f"{told}: {advice(encode)}")
            entry = self.embeddings.fetch([caption])[0]
        tensors: dict[str, Tensor] = {f"text_{name}": value for name, value in entry.items()}
        return {"caption": caption, **tensors}

    def texts(self, source: Source) -> Iterator[str]:
        """Every text that a source's samples may ask for; the empty one is always built."""
        for caption in captions_of(source):
            lines = caption.split("\n")
            yield from lines[:1] if self.choice == "first" else lines

    def __getstate__(self) -> dict[str, Any]:
        """Without the encoder: what travels to a worker only looks up."""
        state = {name: value for name, value in self.__dict__.items() if name != "embeddings"}
        return {**state, "_encoder": self.embeddings.fingerprint}
