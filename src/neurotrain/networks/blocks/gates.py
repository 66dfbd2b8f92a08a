"""Where one half of a signal decides how much of the other passes: gated layers of sequences, gates of maps.

Shape legend: ``B`` batch, ``L`` places, ``D`` width, ``C`` channels, ``*spatial`` two or three axes (``S`` in names).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final

import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.blocks.convolution import Dims, Normalization, check_choice, convolution, normalization

Activation = Literal["gelu", "relu", "silu", "swiglu", "geglu", "reglu", "glu"]
"""``gelu``, ``relu``, ``silu``: plain; the others multiply by an activation: SiLU, GELU, ReLU, sigmoid."""

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}
_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": F.silu,
    "geglu": F.gelu,
    "reglu": F.relu,
    "glu": F.sigmoid,
}


@final
class FeedForward(nn.Module):
    """Two linear layers with an activation or a gate between them, each place for itself.

    Plain: ``W_out act(W_in x)``; gated: ``W_out (act(W_gate x) * W_in x)``.

    Example:
        >>> import torch
        >>> FeedForward(width=8, hidden=16, activation="swiglu")(torch.zeros(1, 3, 8)).shape
        torch.Size([1, 3, 8])

    Reference:
        Shazeer, 2020 (arXiv:2002.05202), equations 5 and 6.
    """

    def __init__(
        self,
        *,
        width: int,
        hidden: int,
        activation: Activation = "gelu",
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        """Build the layer.

        Args:
            width: D.
            hidden: between the layers; a gate has three matrices instead of two, so two thirds of it cost the same.
            activation: see :data:`Activation`.
            bias: whether the linear layers have one.
            dropout: of the hidden values, in ``[0, 1)``.

        Raises:
            ValueError: if ``activation`` is unknown.
        """
        super().__init__()
        check_choice("activation", activation, (*_PLAIN, *_GATES))
        self.activation: Activation = activation
        self.enter = nn.Linear(width, hidden, bias=bias)
        self.gate = nn.Linear(width, hidden, bias=bias) if activation in _GATES else None
        self.dropout = nn.Dropout(dropout)
        self.leave = nn.Linear(hidden, width, bias=bias)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Map ``(..., D)`` to the same shape."""
        hidden = self.enter(x_BLD)
        if self.gate is None:
            hidden = _PLAIN[self.activation](hidden)
        else:
            hidden = _GATES[self.activation](self.gate(x_BLD)) * hidden
        return self.leave(self.dropout(hidden))


@final
class SqueezeExcite(nn.Module):
    """Weighs the channels of a map by what all pixels say together: ``x * sigmoid(W_2 relu(W_1 mean(x)))``.

    Args:
        channels: C.
        reduction: C over the number of hidden channels, rounded down to at least 1.
        dims: number of spatial axes.

    Reference:
        Hu et al., 2018 (arXiv:1709.01507), section 3.

    Example:
        >>> import torch
        >>> SqueezeExcite(channels=8, reduction=4)(torch.zeros(1, 8, 3, 3)).shape
        torch.Size([1, 8, 3, 3])
    """

    def __init__(self, *, channels: int, reduction: int = 16, dims: Dims = 2) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.reduce = convolution(channels, hidden, kernel=1, dims=dims, bias=True)
        self.expand = convolution(hidden, channels, kernel=1, dims=dims, bias=True)

    def forward(self, x_BCS: Tensor) -> Tensor:
        """Weigh ``(B, C, *spatial)``."""
        mean = x_BCS.mean(tuple(range(2, x_BCS.ndim)), keepdim=True)
        return x_BCS * self.expand(F.relu(self.reduce(mean))).sigmoid()


@final
class AttentionGate(nn.Module):
    """Weighs the pixels of a skip connection by what the decoder's features say of them.

    ``skip * sigmoid(norm(psi relu(norm(W_x skip) + norm(W_g gate))))`` with 1x1 convolutions, both at the resolution of
    the skip connection: the gate is raised before it is asked, where the paper asks it at the coarser one.

    Args:
        skip_channels: of the encoder's features.
        gate_channels: of the decoder's, raised to the same size.
        dims: number of spatial axes.
        norm: after each convolution.

    Reference:
        Oktay et al., 2018 (arXiv:1804.03999), equations 1 to 3; in the form of MONAI's ``AttentionUnet``.

    Example:
        >>> import torch
        >>> gate = AttentionGate(skip_channels=4, gate_channels=6)
        >>> gate(torch.zeros(2, 4, 7, 5), torch.zeros(2, 6, 7, 5)).shape
        torch.Size([2, 4, 7, 5])
    """

    def __init__(
        self, *, skip_channels: int, gate_channels: int, dims: Dims = 2, norm: Normalization = "batch"
    ) -> None:
        super().__init__()
        hidden = max(skip_channels // 2, 1)
        self.skip = convolution(skip_channels, hidden, kernel=1, dims=dims, bias=True)
        self.skip_norm = normalization(norm, hidden, dims=dims)
        self.gate = convolution(gate_channels, hidden, kernel=1, dims=dims, bias=True)
        self.gate_norm = normalization(norm, hidden, dims=dims)
        self.weight = convolution(hidden, 1, kernel=1, dims=dims, bias=True)
        self.weight_norm = normalization(norm, 1, dims=dims)

    def forward(self, skip_BCS: Tensor, gate_BCS: Tensor) -> Tensor:
        """Weigh ``skip_BCS`` ``(B, skip_channels, *spatial)`` by ``gate_BCS`` ``(B, gate_channels, *spatial)``."""
        agreed = F.relu(self.skip_norm(self.skip(skip_BCS)) + self.gate_norm(self.gate(gate_BCS)))
        return skip_BCS * self.weight_norm(self.weight(agreed)).sigmoid()
