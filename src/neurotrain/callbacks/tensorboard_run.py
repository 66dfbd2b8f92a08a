"""``tensorboard/``: the same values as in ``metrics.csv``, for TensorBoard."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_only

from neurotrain.callbacks import event_files
from neurotrain.callbacks.run_logger import NOTHING, RunLogger
from neurotrain.callbacks.run_parameters import leaves, read_configuration


class _Row(NamedTuple):
    step: int
    wall_time: float
    values: dict[str, float]


class TensorBoardRun(RunLogger):
    """Writes what a run logs to event files in ``<directory>/tensorboard``, named and counted as in ``metrics.csv``.

    ``tensorboard --logdir runs`` compares all runs, their parameters (``config.yaml`` of the run directory, secrets
    hidden, by dotted names) included. A resumed run goes on in the same folder, with a file of its own that takes back
    the steps past its checkpoint. Rows are encoded and appended at most every few seconds, so a step costs no more than
    a dictionary; nothing of TensorBoard is imported before the first of them.
    """

    def __init__(self, *, directory: Path, flush_seconds: float = 5.0) -> None:
        """See :class:`RunLogger`."""
        super().__init__(directory=directory, flush_seconds=flush_seconds)
        self.folder = self._directory / "tensorboard"
        self._file: Path | None = None  # of this process
        self._length = 0  # of that file, whole records
        self._rows: list[_Row] = []
        self._last: dict[str, tuple[int, float]] = {}
        self._from: int | None = None  # step from which on earlier values are to be taken back

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds values of the present step; what was logged for it already is not logged twice.

        Args:
            metrics: numbers by name; ``epoch`` is one of them where known.
            step: used when no trainer is followed; 0 when not given.
        """
        count = self.count(step)
        values = {name: float(value) for name, value in metrics.items()}
        new = {name: value for name, value in values.items() if not self._has(name, count, value)}
        if not new:
            return
        self._last.update({name: (count, value) for name, value in new.items()})
        self._rows.append(_Row(count, time.time(), new))
        if self.is_due():
            self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Writes the rows that wait; where there is no room for them they go on waiting, which is said once."""
        if self._rows or self._from is not None:
            self.has_room_for(self._write, self.folder)

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Forgets values past ``step``: a record says so to whoever reads the files."""
        self._rows = [row for row in self._rows if row.step <= step]
        self._last = {name: seen for name, seen in self._last.items() if seen[0] <= step}
        if step == NOTHING:
            self._file = None
            for path in event_files.event_files(self.folder):
                path.unlink()
        elif event_files.event_files(self.folder):
            self._from = step + 1

    def _has(self, name: str, step: int, value: float) -> bool:
        seen = self._last.get(name)
        return (
            seen is not None and seen[0] == step and (seen[1] == value or (math.isnan(seen[1]) and math.isnan(value)))
        )

    def _write(self) -> None:
        data = b"".join(event_files.scalars(row.values, row.step, row.wall_time) for row in self._rows)
        now = time.time()
        if self._from is not None:
            data = event_files.session_start(self._from, now) + data
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            known = {} if event_files.event_files(self.folder) else dict(leaves(read_configuration(self._directory)))
            first = event_files.parameters(known, now) if known else b""
            data = event_files.file_version(now) + first + data
            self._file, self._length = event_files.next_file(self.folder), 0
        self._append(self._file, data)
        self._rows, self._from = [], None

    def _append(self, path: Path, data: bytes) -> None:
        with path.open("ab") as file:
            file.truncate(self._length)  # of what did not fit before, a part may stand there
            file.write(data)
            file.flush()
        self._length += len(data)
