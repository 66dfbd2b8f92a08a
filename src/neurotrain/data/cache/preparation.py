"""From a raw sample to the picture that an encoder gets; what is done to it is part of the key."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.data.cache.keys import Settings
from neurotrain.data.sources.base import RawSample, SampleFormatError

Crop = Literal["centre", "corner"]
"""Which part of a picture of another aspect is kept; ``corner``: the upper left one."""

Interpolation = Literal["bilinear", "bicubic"]


class Preparation(Protocol):
    """Raw sample to picture: deterministic, or the same key would stand for several values. Picklable."""

    def settings(self) -> Settings:
        """Everything that decides the picture besides the sample; a change of it is a miss."""
        ...

    def __call__(self, sample: RawSample) -> Tensor:
        """Decode and resize.

        Returns:
            float32 ``(C, H, W)`` on the CPU.

        Raises:
            SampleFormatError: if the sample cannot be decoded.
        """
        ...


class ImagePreparation:
    """Decodes an image, scales it to cover a resolution, cuts off what stands over: float32 ``(3, H, W)`` in [-1, 1].

    Scaling down is antialiased. A random crop is not offered: one key would stand for many pictures.

    Args:
        resolution: height and width in pixels, or one number for both.
        crop: which part is kept.
        interpolation: of the scaling.
        field: of the sample.

    Raises:
        ValueError: if a number or a name is not one of those.

    Example:
        >>> ImagePreparation(resolution=64).settings()["resolution"]
        [64, 64]
    """

    def __init__(
        self,
        *,
        resolution: int | tuple[int, int],
        crop: Crop = "centre",
        interpolation: Interpolation = "bicubic",
        field: str = "image",
    ) -> None:
        height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
        if height < 1 or width < 1:
            raise ValueError(f"resolution={resolution}: at least 1 pixel each way")
        if crop not in get_args(Crop):
            raise ValueError(f"crop={crop!r}: one of {', '.join(get_args(Crop))}")
        if interpolation not in get_args(Interpolation):
            raise ValueError(f"interpolation={interpolation!r}: one of {', '.join(get_args(Interpolation))}")
        self.resolution = (height, width)
        self.crop: Crop = crop
        self.interpolation: Interpolation = interpolation
        self.field = field

    def settings(self) -> Settings:
        """See :class:`Preparation`."""
        return {
            "name": "image-1",  # counts up when the same settings give other pixels
            "resolution": list(self.resolution),
            "crop": self.crop,
            "interpolation": self.interpolation,
            "field": self.field,
        }

    def __call__(self, sample: RawSample) -> Tensor:
        """Decode, scale, crop: see :class:`Preparation`."""
        from neurotrain.data.decoders import decode_rgb

        data = sample.fields.get(self.field)
        if not isinstance(data, bytes):
            raise SampleFormatError(f"{sample.uri}: no encoded {self.field!r} in it, only {sorted(sample.fields)}")
        image_HWC = torch.from_numpy(decode_rgb(data, uri=sample.uri))
        return cover(image_HWC.permute(2, 0, 1), self.resolution, crop=self.crop, mode=self.interpolation)


def cover(image_CHW: Tensor, resolution: tuple[int, int], *, crop: Crop, mode: Interpolation) -> Tensor:
    """Scale an image until it covers a resolution, and cut off the rest.

    Args:
        image_CHW: uint8.
        resolution: height and width of the result.
        crop: which part is kept.
        mode: of the interpolation.

    Returns:
        float32 ``(C, H, W)`` in [-1, 1].

    Example:
        >>> cover(torch.full((3, 10, 30), 255, dtype=torch.uint8), (4, 4), crop="centre", mode="bilinear").shape
        torch.Size([3, 4, 4])
    """
    height, width = image_CHW.shape[-2:]
    scale = max(resolution[0] / height, resolution[1] / width)
    size = (max(resolution[0], round(height * scale)), max(resolution[1], round(width * scale)))
    scaled = image_CHW[None].float()
    if size != (height, width):
        scaled = F.interpolate(scaled, size=size, mode=mode, align_corners=False, antialias=True)
    top, left = [(size[axis] - resolution[axis]) // 2 if crop == "centre" else 0 for axis in (0, 1)]
    cut = scaled[0, :, top : top + resolution[0], left : left + resolution[1]]
    # Bicubic weights overshoot at edges; an encoder was trained on [-1, 1].
    return cut.clamp(0, 255).div_(127.5).sub_(1).contiguous()
