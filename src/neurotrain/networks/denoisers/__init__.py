"""Networks that see the data in noise; each says what it predicts, conversions are :mod:`neurotrain.noise`'s."""

from neurotrain.networks.denoisers.base import Denoiser, TimeEmbedding
from neurotrain.networks.denoisers.pixel_unet import PixelUNet
from neurotrain.networks.denoisers.point_mlp import PointMLP
from neurotrain.networks.denoisers.pretrained import (
    ConditionalUNet,
    DiffusersDenoiser,
    FluxTransformer,
    PlainUNet,
    SD3Transformer,
)

__all__ = [
    "ConditionalUNet",
    "Denoiser",
    "DiffusersDenoiser",
    "FluxTransformer",
    "PixelUNet",
    "PlainUNet",
    "PointMLP",
    "SD3Transformer",
    "TimeEmbedding",
]
