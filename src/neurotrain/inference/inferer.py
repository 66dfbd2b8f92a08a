"""From a predictor of tensors that a network likes to a prediction for any image.

Shape legend: ``B`` batch, ``C`` image channels, ``K`` predicted channels, ``*spatial`` two or three axes (``S`` in
suffixes), ``N`` windows in one call of the predictor.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.inference.sliding_window import Windows, blended
from neurotrain.networks.blocks import check_choice

Predictor = Callable[[Tensor], Tensor]
"""From an image ``(B, C, *spatial)`` to probabilities ``(B, K, *spatial)``."""


class Inferer(ABC):
    """A way to apply a predictor to whole images."""

    @abstractmethod
    def __call__(self, predictor: Predictor, image: Tensor) -> Tensor:
        """Predict every pixel.

        Args:
            predictor: from ``(B, C, *spatial)`` to probabilities ``(B, K, *spatial)``.
            image: float ``(B, C, *spatial)``.

        Returns:
            Probabilities ``(B, K, *spatial)``.
        """


@final
@dataclass(frozen=True, kw_only=True)
class FullImage(Inferer):
    """The whole image in one call, padded on both sides to a multiple of ``divisor`` and cropped back.

    Attributes:
        divisor: every axis is padded to a multiple of it; 1 pads nothing.
        padding_mode: what the padding holds: the mirrored image, its edge, or zeros.

    Example:
        >>> FullImage(divisor=16)(lambda x: x.sigmoid(), torch.zeros(1, 1, 37, 50)).shape
        torch.Size([1, 1, 37, 50])
    """

    divisor: int = 16
    padding_mode: Literal["reflect", "replicate", "constant"] = "reflect"

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_choice("padding_mode", self.padding_mode, ("reflect", "replicate", "constant"))
        if self.divisor < 1:
            raise ValueError(f"divisor={self.divisor} must be at least 1")

    def __call__(self, predictor: Predictor, image: Tensor) -> Tensor:
        """Predict every pixel; see ``Inferer``.

        Raises:
            ValueError: if the image is too small to be mirrored, or the predictor changes the spatial size.
        """
        size = _spatial_size(image)
        missing = [-length % self.divisor for length in size]
        if self.padding_mode == "reflect" and any(-(-m // 2) >= s for m, s in zip(missing, size, strict=True)):
            raise ValueError(
                f"padding_mode='reflect' cannot pad an image of size {size} to a multiple of divisor={self.divisor}: "
                "it is too small to be mirrored; use padding_mode='replicate'"
            )
        padded, inside = _pad(image, missing, self.padding_mode)
        return _predict(predictor, padded)[(..., *inside)]


@final
@dataclass(frozen=True, kw_only=True)
class SlidingWindow(Inferer):
    """Overlapping windows, predicted in small batches and blended by weighted average.

    Positions, weights and the treatment of images smaller than the window (zeros on both sides) are those of MONAI's
    ``sliding_window_inference``. Memory beyond one batch of windows is that of the result and of two maps of weights,
    in float32 at least, on the image's device or on the CPU.

    Attributes:
        window: size of the windows, one number for each spatial axis.
        overlap: share of a window in ``[0, 1)`` that it has in common with the next one.
        blending: ``"gaussian"`` trusts the middle of a window more than its border, ``"constant"`` does not.
        sigma_scale: standard deviation of the Gaussian as a share of the window.
        batch_size: windows in one call of the predictor.
        accumulate_on: where predictions are blended, and the result lies: ``cpu`` leaves a GPU with one batch of
            windows, for volumes whose probabilities do not fit there.

    Example:
        >>> infer = SlidingWindow(window=(32, 32))
        >>> infer(lambda x: x[:, :1], torch.ones(1, 3, 50, 70)).round(decimals=5).unique()
        tensor([1.])

    Reference:
        ``monai.inferers.sliding_window_inference`` (MONAI 1.6); Gaussian weights as in nnU-Net (Isensee et al.,
        2021, doi:10.1038/s41592-020-01008-z).
    """

    window: tuple[int, ...]
    overlap: float = 0.5
    blending: Literal["gaussian", "constant"] = "gaussian"
    sigma_scale: float = 0.125
    batch_size: int = 4
    accumulate_on: Literal["image", "cpu"] = "image"

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_choice("accumulate_on", self.accumulate_on, ("image", "cpu"))
        check_choice("blending", self.blending, ("gaussian", "constant"))
        if not self.window or min(self.window) < 1:
            raise ValueError(f"window={self.window} needs a length of at least 1 for each spatial axis")
        if not 0.0 <= self.overlap < 1.0:
            raise ValueError(f"overlap={self.overlap} must be in [0, 1)")
        if not 0.0 < self.sigma_scale < math.inf:
            raise ValueError(f"sigma_scale={self.sigma_scale} must be positive")
        if self.blending == "constant" and self.sigma_scale != SlidingWindow.sigma_scale:
            raise ValueError(f"sigma_scale={self.sigma_scale} has no effect with blending='constant'")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1")

    def __call__(self, predictor: Predictor, image: Tensor) -> Tensor:
        """Predict every pixel; see ``Inferer``.

        Raises:
            ValueError: if the image has another number of axes than ``window``, or the predictor changes the size.
        """
        size = _spatial_size(image)
        if len(size) != len(self.window):
            raise ValueError(f"window={self.window} has {len(self.window)} axes, the image of size {size} {len(size)}")
        missing = [max(length - have, 0) for length, have in zip(self.window, size, strict=True)]
        padded_BCS, inside = _pad(image, missing, "constant")
        return blended(
            lambda windows: _predict(predictor, windows),
            padded_BCS,
            windows=Windows(
                window=tuple(self.window),
                overlap=self.overlap,
                blending=self.blending,
                sigma_scale=self.sigma_scale,
            ),
            batch_size=self.batch_size,
            # Half-precision sums of many windows would lose the small ones.
            dtype=torch.promote_types(image.dtype, torch.float32),
            device=torch.device("cpu") if self.accumulate_on == "cpu" else image.device,
        )[(..., *inside)]


def _spatial_size(image: Tensor) -> tuple[int, ...]:
    if image.ndim not in (4, 5):
        raise ValueError(f"image of shape {tuple(image.shape)}: expected (batch, channels, *spatial) with 2 or 3 axes")
    return tuple(image.shape[2:])


def _pad(image: Tensor, missing: Sequence[int], mode: str) -> tuple[Tensor, tuple[slice, ...]]:
    """Add ``missing`` pixels to each spatial axis, the odd one at the end; also where the image lies in the result."""
    before = [amount // 2 for amount in missing]
    inside = tuple(slice(start, start + length) for start, length in zip(before, image.shape[2:], strict=True))
    if not any(missing):
        return image, inside
    # F.pad counts from the last axis.
    sides = [side for b, m in zip(reversed(before), reversed(missing), strict=True) for side in (b, m - b)]
    return F.pad(image, sides, mode=mode), inside


def _predict(predictor: Predictor, image: Tensor) -> Tensor:
    predicted = predictor(image)
    if predicted.shape[0] != image.shape[0] or predicted.shape[2:] != image.shape[2:]:
        raise ValueError(
            f"the predictor turned an image of shape {tuple(image.shape)} into {tuple(predicted.shape)}: "
            "batch and spatial size must stay"
        )
    return predicted
