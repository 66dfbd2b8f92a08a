"""``metrics.csv`` read by a process that does not train: without torch, and while somebody writes to it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

METRICS = "metrics.csv"


def metric_rows(path: Path) -> Iterator[dict[str, float]]:
    """Yield the rows of a metrics file; what is not whole is left out.

    Args:
        path: of the file; may be absent.

    Yields:
        The columns that have a value in a row. A last line without its end, and lines that are no numbers or have
        another number of cells than the header, are being written or were torn, and are left out.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return
    whole = text[: text.rfind(b"\n") + 1].decode(errors="replace")
    reader = csv.reader(whole.splitlines())
    columns = next(reader, [])
    for cells in reader:
        if len(cells) != len(columns):
            continue
        try:
            yield {name: float(cell) for name, cell in zip(columns, cells, strict=True) if cell}
        except ValueError:
            continue  # torn in the middle of the file: a disk that was full


def last_values(path: Path) -> dict[str, float]:
    r"""Return the last value of each column.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.csv"
        >>> _ = path.write_text("step,val/dice,train/loss\n1,0.5,\n2,,0.25\n3,0.")
        >>> last_values(path)
        {'step': 2.0, 'val/dice': 0.5, 'train/loss': 0.25}
    """
    values: dict[str, float] = {}
    for row in metric_rows(path):
        values.update(row)
    return values
