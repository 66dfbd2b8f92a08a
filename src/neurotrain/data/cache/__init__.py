"""Caches of latents and text embeddings: content-addressed, bounded, crash-safe."""

from neurotrain.data.cache.build import BuildError, BuildProgress, BuildReport
from neurotrain.data.cache.encoders import LatentEncoder, LatentMode, TextEncoder, draw_latent, weights_fingerprint
from neurotrain.data.cache.filling import EncodeError, EncodingStatistics
from neurotrain.data.cache.latents import CacheMissError, LatentCache
from neurotrain.data.cache.maintenance import FolderStatistics, GcReport, VerifyReport, gc, stats, verify
from neurotrain.data.cache.preparation import Preparation
from neurotrain.data.cache.shard import CacheFormatError, CacheFullError
from neurotrain.data.cache.store import CacheStatistics, TensorCache
from neurotrain.data.cache.texts import TextEmbeddingCache, captions_of, drop_captions

__all__ = [
    "BuildError",
    "BuildProgress",
    "BuildReport",
    "CacheFormatError",
    "CacheFullError",
    "CacheMissError",
    "CacheStatistics",
    "EncodeError",
    "EncodingStatistics",
    "FolderStatistics",
    "GcReport",
    "LatentCache",
    "LatentEncoder",
    "LatentMode",
    "Preparation",
    "TensorCache",
    "TextEmbeddingCache",
    "TextEncoder",
    "VerifyReport",
    "captions_of",
    "draw_latent",
    "drop_captions",
    "gc",
    "stats",
    "verify",
    "weights_fingerprint",
]
