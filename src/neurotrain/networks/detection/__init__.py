"""Networks that find objects in images: torchvision's detectors over ResNets with feature pyramids."""

from neurotrain.networks.detection.base import Detection, DetectionTarget, Detector
from neurotrain.networks.detection.one_stage import Fcos, RetinaNet
from neurotrain.networks.detection.two_stage import FasterRcnn, MaskRcnn

__all__ = ["Detection", "DetectionTarget", "Detector", "FasterRcnn", "Fcos", "MaskRcnn", "RetinaNet"]
