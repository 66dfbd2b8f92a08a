"""Joint transforms of image, labels and validity mask; every random number comes from a generator that is passed in."""

from neurotrain.data.transforms.base import Compose, Identity, Transform
from neurotrain.data.transforms.geometry import CentreCrop, PadToMultiple, RandomFlip, RandomRotate90, Resize
from neurotrain.data.transforms.intensity import Normalize, NormalizeInside, RandomBlur, RandomColor, RandomNoise
from neurotrain.data.transforms.patch import RandomPatch

__all__ = [
    "CentreCrop",
    "Compose",
    "Identity",
    "Normalize",
    "NormalizeInside",
    "PadToMultiple",
    "RandomBlur",
    "RandomColor",
    "RandomFlip",
    "RandomNoise",
    "RandomPatch",
    "RandomRotate90",
    "Resize",
    "Transform",
]
