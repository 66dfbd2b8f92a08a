"""Networks that map an image ``(B, C, *spatial)`` to logits ``(B, K, *spatial)``."""

from neurotrain.networks.output import SegmentationOutput
from neurotrain.networks.simple_net import SimpleNet
from neurotrain.networks.smp import SmpNetwork
from neurotrain.networks.unet import UNet
from neurotrain.networks.wnet import WNet

__all__ = ["SegmentationOutput", "SimpleNet", "SmpNetwork", "UNet", "WNet"]
