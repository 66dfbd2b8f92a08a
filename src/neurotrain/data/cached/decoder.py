"""An entry to what caches hold of it, beside its image or instead of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from neurotrain.batch import LatentSample
from neurotrain.data.cache import CacheStatistics
from neurotrain.data.cached.latents import CachedLatents
from neurotrain.data.cached.texts import CachedTexts
from neurotrain.data.decoders import Decoder
from neurotrain.data.sources import RawSample

OnMiss = Literal["error", "encode"]
"""What happens where an entry is missing."""


class CachedDecoder(Decoder[LatentSample]):
    """Gives the latent of an entry's image, the embedding of its caption, or both.

    ``neurotrain cache build`` stores everything ahead of training. Workers of a loader look up and never encode: a miss
    there is an error that says so. In the main process (``num_workers=0``) ``on_miss="encode"`` fills the caches on
    demand. In a :class:`~neurotrain.data.cached_module.CachedDataModule` an image whose latent is stored is not read.

    Args:
        latents: of the image; None: there are none.
        texts: embeddings of the caption; None: there are none.
        beside: decodes further fields of the same entry, such as the image itself; None: nothing.
        on_miss: ``encode`` encodes and stores what is missing, in the main process.

    Raises:
        ValueError: if there is nothing to look up, a choice is unknown, or it asks to encode without an encoder.
    """

    def __init__(
        self,
        *,
        latents: CachedLatents | None = None,
        texts: CachedTexts | None = None,
        beside: Decoder[Any] | None = None,
        on_miss: OnMiss = "error",
    ) -> None:
        if latents is None and texts is None:
            raise ValueError("latents and texts are both None: give what is to be looked up")
        if on_miss not in get_args(OnMiss):
            raise ValueError(f"on_miss={on_miss!r}: must be one of {', '.join(map(repr, get_args(OnMiss)))}")
        for name, cached in (("latents", latents), ("texts", texts)):
            if on_miss == "encode" and cached is not None and not cached.encodes:
                raise ValueError(f"on_miss='encode': {name}.encoder is a fingerprint, which encodes nothing")
        self.latents = latents
        self.texts = texts
        self.beside = beside
        self.on_miss: OnMiss = on_miss

    @property
    def deterministic(self) -> bool:
        """True where no latent is drawn, no caption chosen or dropped, and what is decoded beside draws nothing."""
        latents = self.latents is None or self.latents.mode == "mean"
        texts = self.texts is None or self.texts.deterministic
        return latents and texts and (self.beside is None or self.beside.deterministic)

    @property
    def needs_only_index(self) -> bool:
        """Whether an entry whose latent is stored need not be read."""
        return self.latents is not None and self.beside is None

    def __call__(self, raw: RawSample, generator: torch.Generator) -> LatentSample:
        """Look one entry up.

        Returns:
            ``latent`` float32; ``caption`` and ``text_<name>``; the fields of ``beside``; ``id``; ``source``.

        Raises:
            NotCachedError: if something is missing and this process does not encode.
            SampleFormatError: if what is missing cannot be decoded, or there is no caption.
        """
        encode = self.on_miss == "encode"
        return self.assemble(raw, None if self.latents is None else self.latents.entry(raw, encode=encode), generator)

    def assemble(self, raw: RawSample, entry: dict[str, Tensor] | None, generator: torch.Generator) -> LatentSample:
        """The sample of an entry whose latent was looked up.

        Args:
            raw: of the source; without its image where nothing is decoded beside.
            entry: of the latent; None where there are no latents.
            generator: source of every random number: caption, dropout, latent, then what is decoded beside.
        """
        sample: dict[str, Any] = {}
        if self.texts is not None:
            caption = self.texts.caption(raw, generator)
            sample |= self.texts.fields(caption, encode=self.on_miss == "encode")
        if self.latents is not None and entry is not None:
            sample |= self.latents.fields(entry, generator)
        beside: Mapping[str, Any] = {} if self.beside is None else self.beside(raw, generator)
        return cast(LatentSample, {**beside, **sample, "id": raw.id, "source": raw.source})

    def open(self) -> None:
        """Open the caches and hash the encoders' files now, so that forked workers need not."""
        if self.latents is not None:
            assert self.latents.latents.fingerprint, "a fingerprint is never empty"
        if self.texts is not None:
            assert self.texts.embeddings.fingerprint, "a fingerprint is never empty"

    def statistics(self) -> dict[str, CacheStatistics]:
        """What each cache did in this process, by ``latents`` and ``texts``."""
        named = {"latents": self.latents, "texts": self.texts}
        return {name: cached.cache.statistics for name, cached in named.items() if cached is not None}
