"""The columnar manifest of a source: built in parallel, incrementally, written whole or not at all, and mapped."""

from neurotrain.data.index.fingerprint import table_fingerprint
from neurotrain.data.index.headers import HeaderError, ImageHeader, read_header
from neurotrain.data.index.listing import listing_table, unchanged_rows
from neurotrain.data.index.manifest import Manifest, ManifestError, load_manifest, open_manifest, save_manifest
from neurotrain.data.index.parallel import read_parallel

__all__ = [
    "HeaderError",
    "ImageHeader",
    "Manifest",
    "ManifestError",
    "listing_table",
    "load_manifest",
    "open_manifest",
    "read_header",
    "read_parallel",
    "save_manifest",
    "table_fingerprint",
    "unchanged_rows",
]
