"""``metrics.csv``: one table of everything that a run logs, which survives kills and resumes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from neurotrain.callbacks.run_logger import RunLogger

Cell = int | float | str
"""A number, or the text of one that was read back from the file."""


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Reads a metrics file, leaving out a torn last line.

    Args:
        path: a file of :class:`MetricsCsv`; may be absent.

    Returns:
        One mapping a row, with the columns that have a value there.
    """
    _, rows = _read(path)
    return [{name: float(cell) for name, cell in row.items()} for row in rows]


class MetricsCsv(RunLogger):
    """Writes metrics to ``<directory>/metrics.csv`` and goes on with the file that is there.

    Columns are ``step`` (optimizer steps done, ``trainer.global_step``), ``epoch``, then the metrics in the order of
    their first appearance; a new one rewrites the file atomically. Metrics of one step share a row. Rows are appended
    in whole lines, at most every few seconds, so a killed process loses the last seconds and nothing else.

    Example:
        >>> import tempfile
        >>> logger = MetricsCsv(directory=Path(tempfile.mkdtemp()))
        >>> logger.log_metrics({"loss": 0.5, "epoch": 0}, step=1)
        >>> logger.log_metrics({"loss": 0.25, "epoch": 0}, step=2)
        >>> logger.log_metrics({"dice": 0.75, "epoch": 0}, step=2)
        >>> logger.flush()
        >>> print(logger.path.read_text(), end="")
        step,epoch,loss,dice
        1,0,0.5,
        2,0,0.25,0.75
    """

    def __init__(self, *, directory: Path, flush_seconds: float = 5.0) -> None:
        """See :class:`RunLogger`."""
        super().__init__(directory=directory, flush_seconds=flush_seconds)
        self.path = Path(directory) / "metrics.csv"
        self._columns: list[str] | None = None  # of the file; None until it was looked at
        self._rows: list[dict[str, Cell]] = []
        self._written: dict[str, Cell] | None = None  # last row that reached the file

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds values to the row of the present step.

        Args:
            metrics: numbers by name; ``epoch`` is one of them where known.
            step: used when no trainer is followed; 0 when not given.
        """
        count = self.count(step)
        row: dict[str, Cell] = {"step": count}
        row.update({name: int(value) if name == "epoch" else float(value) for name, value in metrics.items()})
        last = self._rows[-1] if self._rows else None
        if last is None and self._written is not None and row.items() <= self._written.items():
            return
        if last is not None and last["step"] == count and all(last.get(name, row[name]) == row[name] for name in row):
            last.update(row)
        else:
            self._rows.append(row)
        if self.is_due():
            self._flush(len(self._rows) - 1)  # the last one may still grow: a step's values share a row, however slow

    def flush(self) -> None:
        """Writes the rows that wait; where there is no room for them they go on waiting, which is said once."""
        self._flush(len(self._rows))

    def _flush(self, count: int) -> None:
        if not self.has_room_for(lambda: self._write_rows(self._rows[:count]), self.path):
            self._columns = None  # the file is looked at anew

    def _write_rows(self, rows: list[dict[str, Cell]]) -> None:
        if not rows:
            return
        columns = self._open()
        new = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in columns]
        if new:
            _, earlier = _read(self.path)
            self._columns = [*columns, *new]
            _replace(self.path, self._columns, [*earlier, *rows])
        else:
            self._columns = None  # looked at anew, and mended, if the disk fills up half-way
            with self.path.open("ab") as file:
                file.write(_text(columns, rows))
            self._columns = columns
        self._written, self._rows = rows[-1], self._rows[len(rows) :]

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Forgets rows past ``step``, in the file and in memory."""
        self._rows = [row for row in self._rows if int(row["step"]) <= step]
        columns, rows = _read(self.path)
        kept = [row for row in rows if int(row["step"]) <= step]
        if columns:
            _replace(self.path, columns, kept)
        self._columns = columns or None

    def _open(self) -> list[str]:
        """Columns of the file; a torn last line, of a process that was killed while writing, is cut."""
        if self._columns is None:
            columns, rows = _read(self.path)
            self._columns = columns or ["step", "epoch"]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.path, self._columns, rows)
        return self._columns


def _read(path: Path) -> tuple[list[str], list[dict[str, Cell]]]:
    """Columns and rows of a file, without what follows its last line end."""
    if not path.is_file():
        return [], []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1].decode()
    reader = csv.reader(io.StringIO(whole))
    columns = next(reader, [])
    rows = [dict(zip(columns, cells, strict=True)) for cells in reader if len(cells) == len(columns)]
    return columns, [{name: cell for name, cell in row.items() if cell != ""} for row in rows]


def _text(columns: list[str], rows: Iterable[Mapping[str, Cell]], *, header: bool = False) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return buffer.getvalue().encode()


def _replace(path: Path, columns: list[str], rows: Iterable[Mapping[str, Cell]]) -> None:
    """Writes the whole file beside the old one, then puts it in its place."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(_text(columns, rows, header=True))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
