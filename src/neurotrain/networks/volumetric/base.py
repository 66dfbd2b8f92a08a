"""What networks for volumes have in common: checked input, logits of its size.

Shape legend: ``B`` batch, ``C`` channels, ``K`` logits, ``X, Y, Z`` spatial axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import ModuleType

from torch import Tensor, nn

from neurotrain.networks.output import SegmentationOutput


class VolumetricNetwork(nn.Module, ABC):
    """Maps volumes ``(B, C, X, Y, Z)`` to logits ``(B, K, X, Y, Z)``.

    Args:
        in_channels: channels C.
        out_channels: logits K.
        divisor: what the length of each axis must be a multiple of.
        instance_norm: whether the coarsest level is normalised over its voxels, of which there must then be several.

    Raises:
        ValueError: if a number is below 1.
    """

    def __init__(
        self, *, in_channels: int, out_channels: int, divisor: tuple[int, int, int], instance_norm: bool
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels) < 1:
            raise ValueError(f"in_channels={in_channels}, out_channels={out_channels}: must be at least 1")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.divisor = divisor
        self._instance_norm = instance_norm

    def forward(self, x_BCXYZ: Tensor) -> Tensor | SegmentationOutput:
        """Predict logits.

        Args:
            x_BCXYZ: float volumes.

        Returns:
            Logits of the same size; with deep supervision, in training, those of all heads, where further heads are
            coarser than the main one.

        Raises:
            ValueError: if the shape does not fit.
        """
        if x_BCXYZ.ndim != 5 or x_BCXYZ.shape[1] != self.in_channels:
            raise ValueError(f"volume of shape {tuple(x_BCXYZ.shape)}: expected (batch, {self.in_channels}, x, y, z)")
        size = tuple(x_BCXYZ.shape[2:])
        if any(length % step for length, step in zip(size, self.divisor, strict=True)):
            near = tuple(-(-length // step) * step for length, step in zip(size, self.divisor, strict=True))
            raise ValueError(
                f"volume of size {size}: {type(self).__name__} needs multiples of {self.divisor}; nearest above: {near}"
            )
        if self._instance_norm and size == self.divisor:
            raise ValueError(
                f"volume of size {size} leaves a single voxel at the coarsest level, which instance norm turns into "
                "zero: take larger patches, or fewer levels"
            )
        return self._predict(x_BCXYZ)

    @abstractmethod
    def _predict(self, x_BCXYZ: Tensor) -> Tensor | SegmentationOutput:
        """Predict logits of checked volumes."""


def monai_nets() -> ModuleType:
    """MONAI's networks, imported when one is built.

    Raises:
        ImportError: says how to install it.
    """
    try:
        import monai.networks.nets as nets
    except ImportError as error:
        raise ImportError('MONAI is not installed: pip install "neurotrain[medical]"') from error
    return nets


def check_levels(least: int, **settings: tuple[int, ...]) -> None:
    """Refuse too few levels, and numbers below 1.

    Raises:
        ValueError: names the setting.
    """
    for name, values in settings.items():
        if len(values) < least or min(values) < 1:
            raise ValueError(f"{name}={tuple(values)}: needs at least {least} numbers of at least 1")
