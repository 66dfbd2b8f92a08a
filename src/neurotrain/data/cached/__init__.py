"""Latents and text embeddings out of caches, as what a source's samples hold."""

from neurotrain.data.cached.ahead import BuiltCache, build_caches
from neurotrain.data.cached.decoder import CachedDecoder
from neurotrain.data.cached.latents import CachedLatents, NotCachedError
from neurotrain.data.cached.module import CachedDataModule, CachedPart
from neurotrain.data.cached.picture import CroppedPicture
from neurotrain.data.cached.texts import CachedTexts

__all__ = [
    "BuiltCache",
    "CachedDataModule",
    "CachedDecoder",
    "CachedLatents",
    "CachedPart",
    "CachedTexts",
    "CroppedPicture",
    "NotCachedError",
    "build_caches",
]
