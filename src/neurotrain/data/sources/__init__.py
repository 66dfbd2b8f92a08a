"""Sources: an index of entries and their raw bytes, one module a storage layout."""

from neurotrain.data.sources.base import Field, RawSample, SampleFormatError, Source, StreamingSource
from neurotrain.data.sources.parquet import ParquetSource

__all__ = ["Field", "ParquetSource", "RawSample", "SampleFormatError", "Source", "StreamingSource"]
