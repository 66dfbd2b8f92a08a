"""Transforms of samples, most of them joint ones of image, labels and mask; each gets its random generator."""

from neurotrain.data.transforms.base import Compose, Identity, Transform
from neurotrain.data.transforms.detection import (
    DetectionColour,
    DetectionCrop,
    DetectionFlip,
    DetectionToFloat,
    DetectionZoomOut,
)
from neurotrain.data.transforms.geometry import CentreCrop, PadToMultiple, RandomFlip, RandomRotate90, Resize
from neurotrain.data.transforms.image import ImageAffine, ImageCrop, ImageFlip, ImageRandAugment, ImageToFloat
from neurotrain.data.transforms.intensity import Normalize, NormalizeInside, RandomBlur, RandomColor, RandomNoise
from neurotrain.data.transforms.patch import RandomPatch
from neurotrain.data.transforms.text import ImageOneCaption

__all__ = [
    "CentreCrop",
    "Compose",
    "DetectionColour",
    "DetectionCrop",
    "DetectionFlip",
    "DetectionToFloat",
    "DetectionZoomOut",
    "Identity",
    "ImageAffine",
    "ImageCrop",
    "ImageFlip",
    "ImageOneCaption",
    "ImageRandAugment",
    "ImageToFloat",
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
