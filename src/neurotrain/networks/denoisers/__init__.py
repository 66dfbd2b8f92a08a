"""Networks that see the data in noise; each says what it predicts, conversions are :mod:`neurotrain.noise`'s."""

from neurotrain.networks.denoisers.base import Denoiser, TimeEmbedding
from neurotrain.networks.denoisers.causal_video import CausalDenoiser, CausalVideo, Past
from neurotrain.networks.denoisers.pixel_unet import PixelUNet
from neurotrain.networks.denoisers.point_mlp import PointMLP
from neurotrain.networks.denoisers.pretrained import (
    ConditionalUNet,
    DiffusersDenoiser,
    FluxTransformer,
    PlainUNet,
    SD3Transformer,
)
from neurotrain.networks.denoisers.wan import CausalWanTransformer, WanDenoiser, WanTransformer, look_back

__all__ = [
    "CausalDenoiser",
    "CausalVideo",
    "CausalWanTransformer",
    "ConditionalUNet",
    "Denoiser",
    "DiffusersDenoiser",
    "FluxTransformer",
    "Past",
    "PixelUNet",
    "PlainUNet",
    "PointMLP",
    "SD3Transformer",
    "TimeEmbedding",
    "WanDenoiser",
    "WanTransformer",
    "look_back",
]
