"""What networks are built of: convolutions, norms, gates, attention, positions, embeddings."""

from neurotrain.networks.blocks.convolution import (
    MAX_GROUPS,
    ConvBlock,
    Dims,
    Normalization,
    Upsample,
    Upsampling,
    check_choice,
    convolution,
    normalization,
    repeat_edge,
    resize,
)

__all__ = [
    "MAX_GROUPS",
    "ConvBlock",
    "Dims",
    "Normalization",
    "Upsample",
    "Upsampling",
    "check_choice",
    "convolution",
    "normalization",
    "repeat_edge",
    "resize",
]
