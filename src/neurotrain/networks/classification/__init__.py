"""Networks that map an image ``(B, C, H, W)`` to logits ``(B, K)`` of the whole of it."""

from neurotrain.networks.classification.base import Classifier, TokenLayout
from neurotrain.networks.classification.resnet_small import ResNetSmall
from neurotrain.networks.classification.timm import Timm
from neurotrain.networks.classification.torchvision import Torchvision
from neurotrain.networks.classification.vgg import VGG
from neurotrain.networks.classification.vision_transformer import VisionTransformer

__all__ = ["VGG", "Classifier", "ResNetSmall", "Timm", "TokenLayout", "Torchvision", "VisionTransformer"]
