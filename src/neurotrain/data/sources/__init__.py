"""Sources: an index of entries and their raw bytes, one module a storage layout."""

from neurotrain.data.sources.base import Field, RawSample, SampleFormatError, Source, SourceError, StreamingSource
from neurotrain.data.sources.caption_tables import CaptionTable, CocoCaptions
from neurotrain.data.sources.captions import Captions, FileNameCaption, InstancePrompt, SiblingText
from neurotrain.data.sources.folder import FolderSource
from neurotrain.data.sources.huggingface import HuggingFaceSource
from neurotrain.data.sources.huggingface_stream import HuggingFaceStream
from neurotrain.data.sources.parquet import ParquetSource
from neurotrain.data.sources.table import TableSource
from neurotrain.data.sources.urls import UrlTableSource
from neurotrain.data.sources.video import VideoSource
from neurotrain.data.sources.webdataset import WebDatasetSource
from neurotrain.data.sources.webdataset_stream import WebDatasetStream

__all__ = [
    "CaptionTable",
    "Captions",
    "CocoCaptions",
    "Field",
    "FileNameCaption",
    "FolderSource",
    "HuggingFaceSource",
    "HuggingFaceStream",
    "InstancePrompt",
    "ParquetSource",
    "RawSample",
    "SampleFormatError",
    "SiblingText",
    "Source",
    "SourceError",
    "StreamingSource",
    "TableSource",
    "UrlTableSource",
    "VideoSource",
    "WebDatasetSource",
    "WebDatasetStream",
]
