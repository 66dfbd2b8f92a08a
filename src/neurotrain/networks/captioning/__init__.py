"""Networks that say in words what an image shows."""

from neurotrain.networks.captioning.base import Captioner
from neurotrain.networks.captioning.huggingface import HuggingFaceCaptioner
from neurotrain.networks.captioning.lora import Lora
from neurotrain.networks.captioning.transformer import TransformerCaptioner

__all__ = ["Captioner", "HuggingFaceCaptioner", "Lora", "TransformerCaptioner"]
