"""Medical volumes: NIfTI in official layouts or rendered, prepared once, memory-mapped, drawn from by class."""

from neurotrain.data.volumes.base import Volume, VolumeDataset, VolumeRecord
from neurotrain.data.volumes.brats import Brats
from neurotrain.data.volumes.btcv import Btcv
from neurotrain.data.volumes.cache import VolumeCache
from neurotrain.data.volumes.labels import LabelMap
from neurotrain.data.volumes.nifti import Geometry, read_geometry, read_image, read_labels, write_labels
from neurotrain.data.volumes.patch import RandomVolumePatch, VolumeCase
from neurotrain.data.volumes.preparation import Prepared, VolumePreparation
from neurotrain.data.volumes.synthetic import SyntheticBrats, SyntheticBtcv

__all__ = [
    "Brats",
    "Btcv",
    "Geometry",
    "LabelMap",
    "Prepared",
    "RandomVolumePatch",
    "SyntheticBrats",
    "SyntheticBtcv",
    "Volume",
    "VolumeCache",
    "VolumeCase",
    "VolumeDataset",
    "VolumePreparation",
    "VolumeRecord",
    "read_geometry",
    "read_image",
    "read_labels",
    "write_labels",
]
