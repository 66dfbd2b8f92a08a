"""Rows of a Parquet file that meet a condition."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurotrain.data.sources.parquet_footer import ParquetFooter
from neurotrain.data.sources.parquet_groups import read_columns
from neurotrain.storage import Storage


def matching_rows(
    storage: Storage, footer: ParquetFooter, *, expression: pc.Expression, columns: Sequence[str]
) -> np.ndarray:
    """Numbers of the rows of a file that meet a condition; row groups that cannot hold one are not read.

    Args:
        storage: holds the file.
        footer: of the file.
        expression: the condition.
        columns: dotted names of those that it looks at.

    Returns:
        int64, ascending.

    Raises:
        StorageError: if the file cannot be read.
        SampleFormatError: if it cannot be decoded.
    """
    groups = _possible_groups(footer, expression)
    if not groups:
        return np.empty(0, dtype=np.int64)
    starts = list(accumulate(footer.rows, initial=0))
    rows = np.concatenate([np.arange(starts[group], starts[group + 1]) for group in groups])
    table = read_columns(storage, footer, columns=columns, groups=groups)
    number = "number of the row"
    return table.append_column(number, pa.array(rows)).filter(expression).column(number).to_numpy()


def _possible_groups(footer: ParquetFooter, expression: pc.Expression) -> list[int]:
    """Row groups whose statistics do not rule the expression out."""
    import pyarrow.dataset as pads

    footer_only = BytesIO()  # the statistics lie in the footer: no row group of the file is there, and none is read
    footer.metadata.write_metadata_file(footer_only)
    fragment = pads.ParquetFileFormat().make_fragment(pa.BufferReader(footer_only.getvalue()))
    return [group.id for group in fragment.subset(filter=expression).row_groups]
