"""The picture that a loader would show, as an encoder gets it: of any aspect, in buckets, of any resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurotrain.data.cache.keys import Settings
from neurotrain.data.decoders import MAX_PIXELS, ImagePreparation, decode_rgb
from neurotrain.data.decoders.base import bytes_of, field_uri
from neurotrain.data.decoders.pixels import WHITE
from neurotrain.data.sources import RawSample, SampleFormatError


class CroppedPicture:
    """Brings an image to the size of a batch exactly as a decoder does, then to float32 in [-1, 1].

    Args:
        preparation: deterministic: one key would stand for many random crops.
        background: colour below transparent pixels.
        max_pixels: pictures of more are refused.
        field: of the sample.

    Raises:
        ValueError: if the preparation draws random numbers.

    Example:
        >>> CroppedPicture(preparation=ImagePreparation(resolution=64)).settings()["aspect"]
        'square'
    """

    def __init__(
        self,
        *,
        preparation: ImagePreparation,
        background: tuple[int, int, int] = WHITE,
        max_pixels: int = MAX_PIXELS,
        field: str = "image",
    ) -> None:
        if not preparation.deterministic:
            raise ValueError("preparation.crop='random': one key would stand for many pictures; 'centre' or 'corner'")
        self.preparation = preparation
        self.background = background
        self.max_pixels = max_pixels
        self.field = field

    def settings(self) -> Settings:
        """Every setting of the preparation, and its class."""
        own: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self.preparation).items()
        }
        kind = f"{type(self.preparation).__module__}.{type(self.preparation).__qualname__}"
        return {"name": "cropped-1", "class": kind, "background": list(self.background), "field": self.field, **own}

    def __call__(self, sample: RawSample) -> Tensor:
        """Decode, scale, cut.

        Returns:
            float32 ``(3, H, W)`` in [-1, 1].

        Raises:
            SampleFormatError: if the sample cannot be decoded, or should have been left out.
        """
        uri = field_uri(sample, self.field)
        data = bytes_of(sample, self.field)
        pixels = decode_rgb(data, uri=uri, max_pixels=self.max_pixels, background=self.background)
        height, width = pixels.shape[:2]
        placement = self.preparation.place(width, height, torch.Generator())
        if isinstance(placement, str):
            raise SampleFormatError(f"{uri}: {width} x {height} pixels, {placement}: it should have been left out")
        cut_HWC = np.ascontiguousarray(self.preparation.apply(pixels, placement))
        return torch.from_numpy(cut_HWC).permute(2, 0, 1).float().div_(127.5).sub_(1).contiguous()
