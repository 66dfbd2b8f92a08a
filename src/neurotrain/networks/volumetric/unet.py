"""MONAI's U-Net with residual units."""

from __future__ import annotations

from typing import Literal, final

from torch import Tensor

from neurotrain.networks.volumetric.base import VolumetricNetwork, check_levels, monai_nets


@final
class MonaiUNet(VolumetricNetwork):
    """Strided convolutions down, transposed ones up, residual units at each level.

    Args:
        in_channels: channels C.
        out_channels: logits K.
        channels: of each level, finest first.
        res_units: residual units of a level; 0: two plain convolutions.
        norm: after each convolution.
        dropout: probability of dropping a channel, in [0, 1).

    Raises:
        ValueError: if a setting is out of range.

    Reference:
        Kerfoot et al., 2019, doi:10.1007/978-3-030-12029-0_40.

    Example:
        >>> import torch
        >>> MonaiUNet(channels=(4, 8), res_units=1)(torch.zeros(1, 1, 16, 16, 8)).shape
        torch.Size([1, 2, 16, 16, 8])
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 2,
        channels: tuple[int, ...] = (16, 32, 64, 128, 256),
        res_units: int = 2,
        norm: Literal["instance", "batch"] = "instance",
        dropout: float = 0.0,
    ) -> None:
        check_levels(2, channels=channels)
        step = 2 ** (len(channels) - 1)
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            divisor=(step, step, step),
            instance_norm=norm == "instance",
        )
        self.network = monai_nets().UNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=tuple(channels),
            strides=(2,) * (len(channels) - 1),
            num_res_units=res_units,
            norm=norm.upper(),
            dropout=dropout,
        )

    def _predict(self, x_BCXYZ: Tensor) -> Tensor:
        return self.network(x_BCXYZ)
