"""Arrow files of ours on a local disk: whole or absent, and mapped instead of read."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

import pyarrow as pa


def write_arrow(table: pa.Table, path: Path) -> None:
    """Write beside the place and rename: two processes that write the same table both end with a whole file.

    Args:
        table: what to write.
        path: of the file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        place = Path(file.name)
        try:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            file.flush()
            os.fsync(file.fileno())
            place.replace(path)
        except BaseException:
            place.unlink(missing_ok=True)
            raise


def map_arrow(path: Path) -> pa.Table | None:
    """A table without copying it.

    Args:
        path: of the file.

    Returns:
        The table, backed by the file; None where there is none, or what is there is no whole Arrow file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.arrow")
        ...     print(map_arrow(path))
        ...     write_arrow(pa.table({"a": [1, 2]}), path)
        ...     map_arrow(path).num_rows
        None
        2
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
