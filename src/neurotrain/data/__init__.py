"""From files to batches: datasets and sources, joint transforms, and an exactly resumable loader."""

from neurotrain.data.loader import PlannedBatches, PlannedLoader
from neurotrain.data.modules import SegmentationDataModule
from neurotrain.data.parts import DatasetPart, Part, PartSamples, SampleError, SourcePart
from neurotrain.data.plan import EpochPlan, SampleKey
from neurotrain.data.planned_module import PlannedDataModule

__all__ = [
    "DatasetPart",
    "EpochPlan",
    "Part",
    "PartSamples",
    "PlannedBatches",
    "PlannedDataModule",
    "PlannedLoader",
    "SampleError",
    "SampleKey",
    "SegmentationDataModule",
    "SourcePart",
]
