"""From the raw fields of a source to typed samples."""

from neurotrain.data.decoders.base import MAX_PIXELS, Decoder
from neurotrain.data.decoders.pixels import decode_rgb
from neurotrain.data.decoders.segmentation import SegmentationDecoder

__all__ = ["MAX_PIXELS", "Decoder", "SegmentationDecoder", "decode_rgb"]
