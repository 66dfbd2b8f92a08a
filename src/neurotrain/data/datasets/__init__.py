"""Named datasets in the layouts that their archives unpack to, a generic folder, and a rendered stand-in."""

from neurotrain.data.datasets.base import Record, SegmentationDataset
from neurotrain.data.datasets.chase_db1 import ChaseDb1
from neurotrain.data.datasets.drive import Drive
from neurotrain.data.datasets.folder import ImageMaskFolder
from neurotrain.data.datasets.isic import Isic
from neurotrain.data.datasets.problems import DatasetError, Problem, VerifyReport
from neurotrain.data.datasets.splits import RecordSplit, hold_out, k_fold
from neurotrain.data.datasets.stare import Stare
from neurotrain.data.datasets.synthetic import SyntheticDrive

__all__ = [
    "ChaseDb1",
    "DatasetError",
    "Drive",
    "ImageMaskFolder",
    "Isic",
    "Problem",
    "Record",
    "RecordSplit",
    "SegmentationDataset",
    "Stare",
    "SyntheticDrive",
    "VerifyReport",
    "hold_out",
    "k_fold",
]
