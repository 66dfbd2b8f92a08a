"""From the raw fields of a source to typed samples."""

from neurotrain.data.decoders.area import AreaPreparation
from neurotrain.data.decoders.arrays import ArrayDecoder, decode_npy, decode_safetensors
from neurotrain.data.decoders.base import MAX_PIXELS, Decoder
from neurotrain.data.decoders.image import ClassificationDecoder, ImageDecoder, ImageTextDecoder
from neurotrain.data.decoders.pixels import decode_mask, decode_rgb
from neurotrain.data.decoders.preparation import ImagePreparation, Placement
from neurotrain.data.decoders.screening import ScreenedSource
from neurotrain.data.decoders.segmentation import SegmentationDecoder
from neurotrain.data.decoders.video import VideoDecoder, VideoPreparation

__all__ = [
    "MAX_PIXELS",
    "AreaPreparation",
    "ArrayDecoder",
    "ClassificationDecoder",
    "Decoder",
    "ImageDecoder",
    "ImagePreparation",
    "ImageTextDecoder",
    "Placement",
    "ScreenedSource",
    "SegmentationDecoder",
    "VideoDecoder",
    "VideoPreparation",
    "decode_mask",
    "decode_npy",
    "decode_rgb",
    "decode_safetensors",
]
