"""Networks that map a volume ``(B, C, X, Y, Z)`` to logits ``(B, K, X, Y, Z)``; MONAI's behind one base."""

from neurotrain.networks.volumetric.base import VolumetricNetwork
from neurotrain.networks.volumetric.dynunet import DynUNet
from neurotrain.networks.volumetric.segresnet import SegResNet
from neurotrain.networks.volumetric.swin_unetr import SwinUNETR
from neurotrain.networks.volumetric.unet import MonaiUNet

__all__ = ["DynUNet", "MonaiUNet", "SegResNet", "SwinUNETR", "VolumetricNetwork"]
