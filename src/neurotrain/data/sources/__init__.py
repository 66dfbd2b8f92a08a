"""Sources: an index of entries and their raw bytes, one module a storage layout."""

from neurotrain.data.sources.base import Field, RawSample, SampleFormatError, Source, StreamingSource

__all__ = ["Field", "RawSample", "SampleFormatError", "Source", "StreamingSource"]
