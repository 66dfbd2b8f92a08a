"""MONAI's SegResNet: the network that won BraTS 2018, without its autoencoder branch."""

from __future__ import annotations

from typing import final

from torch import Tensor

from neurotrain.networks.volumetric.base import VolumetricNetwork, check_levels, monai_nets


@final
class SegResNet(VolumetricNetwork):
    """Residual blocks with group norm, a wide encoder and a narrow decoder.

    Args:
        in_channels: channels C.
        out_channels: logits K.
        width: channels of the first level, doubled from each to the next.
        blocks_down: residual blocks of each level.
        blocks_up: residual blocks of each level of the decoder, coarsest first: one number less.
        groups: of the group norm; must divide ``width``.
        dropout: before the first level, in [0, 1); 0 leaves it out.

    Raises:
        ValueError: if the settings do not fit each other.

    Reference:
        Myronenko, 2018 (arXiv:1810.11654).

    Example:
        >>> import torch
        >>> network = SegResNet(width=4, blocks_down=(1, 1), blocks_up=(1,), groups=4)
        >>> network(torch.zeros(1, 1, 8, 8, 8)).shape
        torch.Size([1, 2, 8, 8, 8])
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 2,
        width: int = 16,
        blocks_down: tuple[int, ...] = (1, 2, 2, 4),
        blocks_up: tuple[int, ...] = (1, 1, 1),
        groups: int = 8,
        dropout: float = 0.0,
    ) -> None:
        check_levels(2, blocks_down=blocks_down)
        check_levels(1, blocks_up=blocks_up)
        if len(blocks_up) != len(blocks_down) - 1:
            raise ValueError(f"blocks_up={blocks_up} needs one number less than blocks_down={blocks_down}")
        if width < 1 or groups < 1 or width % groups:
            raise ValueError(f"groups={groups} must divide width={width}")
        step = 2 ** (len(blocks_down) - 1)
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, divisor=(step, step, step), instance_norm=False
        )
        self.network = monai_nets().SegResNet(
            spatial_dims=3,
            init_filters=width,
            in_channels=in_channels,
            out_channels=out_channels,
            dropout_prob=dropout or None,
            norm=("GROUP", {"num_groups": groups}),
            blocks_down=tuple(blocks_down),
            blocks_up=tuple(blocks_up),
        )

    def _predict(self, x_BCXYZ: Tensor) -> Tensor:
        return self.network(x_BCXYZ)
