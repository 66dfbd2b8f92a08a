"""The least network there is: what the pixel's own colour tells.

Shape legend: ``B`` batch, ``C`` image channels, ``K`` logits, ``*spatial`` two or three axes (``S`` in suffixes).
"""

from __future__ import annotations

from typing import Literal, final

from torch import Tensor, nn

from neurotrain.networks.blocks import check_choice, convolution


@final
class SimpleNet(nn.Module):
    """A 1x1 convolution: logistic regression on each pixel for itself.

    A floor that any other network must beat, and the quickest one to try data and losses with. For images and volumes
    of any size.

    Args:
        in_channels: channels C of the image.
        out_channels: logits K.
        dims: number of spatial axes.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import torch
        >>> SimpleNet(out_channels=2)(torch.zeros(1, 3, 5, 7)).shape
        torch.Size([1, 2, 5, 7])
    """

    def __init__(self, *, in_channels: int = 3, out_channels: int = 1, dims: Literal[2, 3] = 2) -> None:
        super().__init__()
        check_choice("dims", dims, (2, 3))
        if min(in_channels, out_channels) < 1:
            raise ValueError(f"in_channels={in_channels}, out_channels={out_channels}: must be at least 1")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.dims: Literal[2, 3] = dims
        self.head = convolution(in_channels, out_channels, kernel=1, dims=dims, bias=True)

    def forward(self, x_BCS: Tensor) -> Tensor:
        """Logits of every pixel.

        Args:
            x_BCS: float image ``(B, C, *spatial)``.

        Returns:
            ``(B, K, *spatial)``.

        Raises:
            ValueError: if the image has another number of axes or channels.
        """
        if x_BCS.ndim != self.dims + 2 or x_BCS.shape[1] != self.in_channels:
            axes = "height, width" if self.dims == 2 else "depth, height, width"
            raise ValueError(f"image of shape {tuple(x_BCS.shape)}: expected (batch, {self.in_channels}, {axes})")
        return self.head(x_BCS)
