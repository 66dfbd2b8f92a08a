"""The latents of samples, looked up where a loader's workers are, encoded elsewhere."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from neurotrain.data.cache import CacheMissError, LatentCache, LatentEncoder, LatentMode, TensorCache, draw_latent
from neurotrain.data.cache.latents import Identify
from neurotrain.data.cache.preparation import Preparation
from neurotrain.data.engine import worker_number
from neurotrain.data.sources import RawSample

StoredType = Literal["float32", "bfloat16", "float16"]
"""What floating-point tensors are stored as."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class NotCachedError(CacheMissError, NotImplementedError):
    """Something is not in its cache, and this process does not encode: a build is missing.

    No sample is to blame, so it is of the kind that no quarantine replaces.
    """


class CachedLatents:
    """Latents of images out of a cache; see :class:`~neurotrain.data.cache.latents.LatentCache`.

    The encoder's files are hashed when the first latent is asked for, its weights are loaded when the first one has to
    be encoded. Pickled, it goes without its encoder.

    Args:
        cache: where they are stored; texts may lie in the same one.
        encoder: makes what is missing; or its fingerprint alone, where nothing is ever encoded.
        prepare: sample to picture.
        store_as: type of what is stored; None: as the encoder gives it.
        batch_size: images of each call of the encoder.
        field: of the sample that is encoded.
        identify: what stands for a sample in its key.
        mode: ``mean``, or ``sample``: drawn anew at each visit, with the sample's own random numbers.

    Raises:
        ValueError: if a name is not one of those.
    """

    def __init__(
        self,
        *,
        cache: TensorCache,
        encoder: LatentEncoder | str,
        prepare: Preparation,
        store_as: StoredType | None = None,
        batch_size: int = 8,
        field: str = "image",
        identify: Identify = "object",
        mode: LatentMode = "mean",
    ) -> None:
        if identify not in get_args(Identify):
            raise ValueError(f"identify={identify!r}: one of {', '.join(get_args(Identify))}")
        if mode not in get_args(LatentMode):
            raise ValueError(f"mode={mode!r}: one of {', '.join(get_args(LatentMode))}")
        self.cache = cache
        self.prepare = prepare
        self.field = field
        self.mode: LatentMode = mode
        self._encoder: LatentEncoder | str = encoder
        self._dtype = dtype_of(store_as)
        self._batch_size = batch_size
        self._identify: Identify = identify

    @property
    def encodes(self) -> bool:
        """Whether there is an encoder."""
        return not isinstance(self._encoder, str)

    @cached_property
    def latents(self) -> LatentCache:
        """The cache with its encoder, opened at the first use."""
        return LatentCache(
            cache=self.cache,
            encoder=self._encoder,
            prepare=self.prepare,
            dtype=self._dtype,
            batch_size=self._batch_size,
            field=self.field,
            identify=self._identify,
        )

    def entry(self, raw: RawSample, *, encode: bool) -> dict[str, Tensor]:
        """What is stored for a sample.

        Args:
            raw: of the source.
            encode: whether what is missing is encoded and stored, in a process that may.

        Raises:
            NotCachedError: if it is missing and this process must not encode.
            SampleFormatError: if it is missing because the sample cannot be decoded.
            EncodeError: if the encoder's result is not finite.
        """
        found = self.latents.get(raw)
        if found is not None:
            return found
        if may_encode(encode):
            return self.latents.fetch([raw])[0]
        self.prepare(raw)  # a sample that no build could encode is a bad sample, not a missing build
        raise NotCachedError(f"no latent of {raw.uri} in {self.cache.path}: {advice(encode)}")

    def told(self, uri: object, etag: object) -> bool:
        """Whether a row of an index tells its key, and there is an entry under it."""
        key = self.latents.told_key(uri, etag)
        return key is not None and key in self.cache

    def fields(self, entry: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """``latent``, and ``latent_<name>`` for whatever else the encoder gave.

        Args:
            entry: as it is stored.
            generator: of the sample, for ``mode="sample"``.
        """
        latent = draw_latent(entry, mode=self.mode, generator=generator if self.mode == "sample" else None)
        others = {name: value for name, value in entry.items() if name not in ("mean", "logvar", "latent")}
        return {"latent": latent, **{f"latent_{name}": value for name, value in others.items()}}

    def __getstate__(self) -> dict[str, Any]:
        """Without the encoder: what travels to a worker only looks up."""
        state = {name: value for name, value in self.__dict__.items() if name != "latents"}
        return {**state, "_encoder": self.latents.fingerprint}


def dtype_of(name: StoredType | None) -> torch.dtype | None:
    """The dtype of a name.

    Raises:
        ValueError: if there is none.

    Example:
        >>> dtype_of("bfloat16")
        torch.bfloat16
    """
    if name is not None and name not in _DTYPES:
        raise ValueError(f"store_as={name!r}: one of {', '.join(_DTYPES)}")
    return None if name is None else _DTYPES[name]


def may_encode(encode: bool) -> bool:
    """Whether this process encodes: never a worker of a loader, which would load the weights once more."""
    return encode and worker_number() is None


def advice(encode: bool) -> str:
    """What to do about a miss."""
    build = "run `neurotrain cache build NAME` with the name of this data configuration"
    return f"{build}, or load with num_workers=0, where on_miss='encode' takes effect" if encode else build
