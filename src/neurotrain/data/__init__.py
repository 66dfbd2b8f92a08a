"""From files to batches: datasets in their official layout, joint transforms, and an exactly resumable loader."""

from neurotrain.data.loader import PlannedBatches, PlannedLoader
from neurotrain.data.modules import SegmentationDataModule
from neurotrain.data.plan import EpochPlan, SampleKey
from neurotrain.data.samples import PlannedSamples, SampleCache, SampleError, collate

__all__ = [
    "EpochPlan",
    "PlannedBatches",
    "PlannedLoader",
    "PlannedSamples",
    "SampleCache",
    "SampleError",
    "SampleKey",
    "SegmentationDataModule",
    "collate",
]
