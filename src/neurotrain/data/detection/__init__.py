"""Annotated objects of pictures: COCO's layout as a source, and its decoder."""

from neurotrain.data.detection.coco import CocoSource
from neurotrain.data.detection.decoder import DetectionDecoder

__all__ = ["CocoSource", "DetectionDecoder"]
