"""MONAI's DynUNet: the network of nnU-Net, with kernels and strides of each level and deep supervision."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from neurotrain.networks.output import SegmentationOutput
from neurotrain.networks.volumetric.base import VolumetricNetwork, check_levels, monai_nets

Axes = tuple[int, int, int]


@final
class DynUNet(VolumetricNetwork):
    """A U-Net whose levels may leave out coarse axes, as anisotropic voxels need it.

    Args:
        in_channels: channels C.
        out_channels: logits K.
        channels: of each level, finest first; at least 3.
        strides: of each level along each axis, the first (1, 1, 1); None: 2 everywhere from the second level on.
        kernels: likewise, odd; None: 3 everywhere.
        deep_supervision: further heads at coarser levels, which training returns; 0: none. At most two less than the
            number of levels.
        residual: whether blocks have a shortcut.
        dropout: in [0, 1); 0 leaves it out.

    Raises:
        ValueError: if the settings do not fit each other.

    Reference:
        Isensee et al., 2021 (doi:10.1038/s41592-020-01008-z); Futrega et al., 2021 (arXiv:2110.03352).

    Example:
        >>> network = DynUNet(channels=(4, 8, 8), strides=((1, 1, 1), (2, 2, 1), (2, 2, 2)), deep_supervision=1)
        >>> output = network(torch.zeros(1, 1, 8, 8, 4))
        >>> [tuple(head.shape) for head in (output.logits, *output.aux)]
        [(1, 2, 8, 8, 4), (1, 2, 4, 4, 4)]
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 2,
        channels: tuple[int, ...] = (32, 64, 128, 256, 320),
        strides: tuple[Axes, ...] | None = None,
        kernels: tuple[Axes, ...] | None = None,
        deep_supervision: int = 0,
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        check_levels(3, channels=channels)
        steps = ((1, 1, 1), *((2, 2, 2),) * (len(channels) - 1)) if strides is None else tuple(map(tuple, strides))
        widths = ((3, 3, 3),) * len(channels) if kernels is None else tuple(map(tuple, kernels))
        _check(channels, steps, widths, deep_supervision)
        divisor = tuple(math.prod(step[axis] for step in steps) for axis in range(3))
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            divisor=(divisor[0], divisor[1], divisor[2]),
            instance_norm=True,
        )
        self.deep_supervision = deep_supervision
        self.network: Any = monai_nets().DynUNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=widths,
            strides=steps,
            upsample_kernel_size=steps[1:],
            filters=tuple(channels),
            dropout=dropout or None,
            deep_supervision=deep_supervision > 0,
            deep_supr_num=max(deep_supervision, 1),
            res_block=residual,
        )
        self._forget()

    def _predict(self, x_BCXYZ: Tensor) -> Tensor | SegmentationOutput:
        logits = self.network.output_block(self.network.skip_layers(x_BCXYZ))
        # Coarse heads as they are: MONAI's forward would enlarge and stack them.
        aux = tuple(self.network.heads) if self.deep_supervision else ()
        self._forget()
        return SegmentationOutput(logits, aux) if self.training and aux else logits

    def _forget(self) -> None:
        """Let go of the last heads: they hold a whole graph, and a module that has one cannot be copied."""
        self.network.heads[:] = [torch.zeros(1)] * len(self.network.heads)


def _check(
    channels: tuple[int, ...], strides: tuple[tuple[int, ...], ...], kernels: tuple[tuple[int, ...], ...], heads: int
) -> None:
    for name, levels in (("strides", strides), ("kernels", kernels)):
        if len(levels) != len(channels) or any(len(level) != 3 or min(level) < 1 for level in levels):
            raise ValueError(f"{name}={levels}: need three numbers of at least 1 for each of {len(channels)} channels")
    if any(step != 1 for step in strides[0]):
        raise ValueError(f"strides={strides}: the first level keeps the resolution, (1, 1, 1)")
    if any(width % 2 == 0 for level in kernels for width in level):
        raise ValueError(f"kernels={kernels}: even kernels move the volume by half a voxel, give odd ones")
    most = len(channels) - 2
    if not 0 <= heads <= most:
        raise ValueError(f"deep_supervision={heads}: {len(channels)} channels have 0 to {most} further heads")
