"""Latents and text embeddings out of caches, as what a source's samples hold."""

from neurotrain.data.cached.decoder import CachedDecoder
from neurotrain.data.cached.latents import CachedLatents, NotCachedError
from neurotrain.data.cached.picture import CroppedPicture
from neurotrain.data.cached.texts import CachedTexts

__all__ = ["CachedDecoder", "CachedLatents", "CachedTexts", "CroppedPicture", "NotCachedError"]
