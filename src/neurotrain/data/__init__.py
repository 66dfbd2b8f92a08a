"""From files to batches: datasets and sources, joint transforms, and an exactly resumable loader."""

from neurotrain.data.cached_module import CachedDataModule
from neurotrain.data.clips import MovingShapesDataModule
from neurotrain.data.counted import CountedLoader
from neurotrain.data.detection_module import DetectionDataModule
from neurotrain.data.loader import PlannedBatches, PlannedLoader
from neurotrain.data.members import BalancedBy, ByLoss, InRandomOrder, InTableOrder, Membership, Order, WeightedBy
from neurotrain.data.mixture_module import MixtureDataModule
from neurotrain.data.modules import SegmentationDataModule
from neurotrain.data.parts import DatasetPart, Part, PartSamples, SampleError, SourcePart
from neurotrain.data.plan import EpochPlan, SampleKey
from neurotrain.data.planned_module import PlannedDataModule
from neurotrain.data.points import PointDataModule
from neurotrain.data.source_modules import (
    CsvDataModule,
    HuggingFaceDataModule,
    LocalDataModule,
    ParquetDataModule,
    S3DataModule,
    SourceDataModule,
    WebDatasetDataModule,
)
from neurotrain.data.stream_module import StreamDataModule
from neurotrain.data.volume_module import VolumeDataModule
from neurotrain.data.weighted import WeightedCombinedLoader

__all__ = [
    "BalancedBy",
    "ByLoss",
    "CachedDataModule",
    "CountedLoader",
    "CsvDataModule",
    "DatasetPart",
    "DetectionDataModule",
    "EpochPlan",
    "HuggingFaceDataModule",
    "InRandomOrder",
    "InTableOrder",
    "LocalDataModule",
    "Membership",
    "MixtureDataModule",
    "MovingShapesDataModule",
    "Order",
    "ParquetDataModule",
    "Part",
    "PartSamples",
    "PlannedBatches",
    "PlannedDataModule",
    "PlannedLoader",
    "PointDataModule",
    "S3DataModule",
    "SampleError",
    "SampleKey",
    "SegmentationDataModule",
    "SourceDataModule",
    "SourcePart",
    "StreamDataModule",
    "VolumeDataModule",
    "WebDatasetDataModule",
    "WeightedBy",
    "WeightedCombinedLoader",
]
