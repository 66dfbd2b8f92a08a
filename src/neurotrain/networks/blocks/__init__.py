"""What networks are built of: convolutions, norms, gates, attention, positions, embeddings."""

from neurotrain.networks.blocks.attention import Attention, KeysValues, KeyValueCache
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
from neurotrain.networks.blocks.embeddings import NumberEmbedding, PatchEmbedding, PrefixTokens, number_features
from neurotrain.networks.blocks.gates import Activation, AttentionGate, FeedForward, SqueezeExcite
from neurotrain.networks.blocks.norms import ChannelNorm, SequenceNorm, sequence_norm
from neurotrain.networks.blocks.packed_layer import PackedLayer
from neurotrain.networks.blocks.positions import (
    LearnedPositions,
    RelativeBias,
    Rotary,
    grid_positions,
    sinusoidal_positions,
)
from neurotrain.networks.blocks.transformer import LayerMemory, TransformerLayer
from neurotrain.networks.blocks.window_attention import WindowAttention

__all__ = [
    "MAX_GROUPS",
    "Activation",
    "Attention",
    "AttentionGate",
    "ChannelNorm",
    "ConvBlock",
    "Dims",
    "FeedForward",
    "KeyValueCache",
    "KeysValues",
    "LayerMemory",
    "LearnedPositions",
    "Normalization",
    "NumberEmbedding",
    "PackedLayer",
    "PatchEmbedding",
    "PrefixTokens",
    "RelativeBias",
    "Rotary",
    "SequenceNorm",
    "SqueezeExcite",
    "TransformerLayer",
    "Upsample",
    "Upsampling",
    "WindowAttention",
    "check_choice",
    "convolution",
    "grid_positions",
    "normalization",
    "number_features",
    "repeat_edge",
    "resize",
    "sequence_norm",
    "sinusoidal_positions",
]
