"""Sources: an index of entries and their raw bytes, one module a storage layout."""

from neurotrain.data.sources.base import Field, RawSample, SampleFormatError, Source, SourceError, StreamingSource
from neurotrain.data.sources.captions import Captions, FileNameCaption, InstancePrompt, SiblingText
from neurotrain.data.sources.folder import FolderSource
from neurotrain.data.sources.parquet import ParquetSource

__all__ = [
    "Captions",
    "Field",
    "FileNameCaption",
    "FolderSource",
    "InstancePrompt",
    "ParquetSource",
    "RawSample",
    "SampleFormatError",
    "SiblingText",
    "Source",
    "SourceError",
    "StreamingSource",
]
