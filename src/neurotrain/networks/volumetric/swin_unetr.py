"""MONAI's Swin UNETR: a shifted-window transformer as the encoder of a U-Net."""

from __future__ import annotations

from typing import final

from torch import Tensor

from neurotrain.networks.volumetric.base import VolumetricNetwork, check_levels, monai_nets


@final
class SwinUNETR(VolumetricNetwork):
    """Four stages of windowed attention, convolutions in the decoder.

    Args:
        in_channels: channels C.
        out_channels: logits K.
        width: channels of the first stage, a multiple of 12.
        depths: attention blocks of each of the four stages.
        heads: attention heads of each of them.
        window: edge of an attention window, in tokens.
        dropout: of tokens, in [0, 1).
        drop_path: stochastic depth, in [0, 1).
        checkpointing: compute activations again in the backward pass instead of keeping them.

    Raises:
        ValueError: if the settings do not fit each other.

    Reference:
        Hatamizadeh et al., 2022 (arXiv:2201.01266); BTCV: Tang et al., 2022 (arXiv:2111.14791).

    Example:
        >>> import torch
        >>> network = SwinUNETR(width=12, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), window=2)
        >>> network(torch.zeros(1, 1, 64, 32, 32)).shape
        torch.Size([1, 2, 64, 32, 32])
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 2,
        width: int = 48,
        depths: tuple[int, int, int, int] = (2, 2, 2, 2),
        heads: tuple[int, int, int, int] = (3, 6, 12, 24),
        window: int = 7,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        check_levels(4, depths=depths, heads=heads)
        if width < 12 or width % 12:
            raise ValueError(f"width={width}: must be a multiple of 12; nearest: {max(12, round(width / 12) * 12)}")
        super().__init__(in_channels=in_channels, out_channels=out_channels, divisor=(32, 32, 32), instance_norm=True)
        self.network = monai_nets().SwinUNETR(
            in_channels=in_channels,
            out_channels=out_channels,
            feature_size=width,
            depths=tuple(depths),
            num_heads=tuple(heads),
            window_size=window,
            drop_rate=dropout,
            dropout_path_rate=drop_path,
            use_checkpoint=checkpointing,
        )

    def _predict(self, x_BCXYZ: Tensor) -> Tensor:
        return self.network(x_BCXYZ)
