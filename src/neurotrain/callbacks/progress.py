"""How far a run is: two lines on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text

from neurotrain.callbacks.pace import Pace, batch_size

_LONG_EPOCH = 10
"""Intervals without an epoch's end after which a plain line is written all the same."""

_VALIDATION_METRICS = 4


class Progress(ProgressBar):
    """Shows epoch, step, speed, time to the end of the whole run, loss, metrics and memory.

    Metrics are those logged with ``prog_bar=True`` (which costs a synchronisation a step on a GPU) and the first few
    whose name starts with ``val/``.

    On a terminal two lines are redrawn, at most a few times a second; the rest of the time a step costs two clock
    readings. Elsewhere (a log file, a notebook, a pipe) there is one line at the end of an epoch, unless the last one
    is fresh; in epochs of many intervals also within.
    """

    def __init__(
        self,
        *,
        interval_seconds: float = 30.0,
        refresh_per_second: float = 4.0,
        console: Console | None = None,
    ) -> None:
        """Set how often to write.

        Args:
            interval_seconds: at least this long between two plain lines.
            refresh_per_second: how often the terminal is redrawn at most.
            console: where to write; None writes to the standard output.

        Raises:
            ValueError: if ``interval_seconds`` is negative or ``refresh_per_second`` is not positive.
        """
        super().__init__()
        if interval_seconds < 0:
            raise ValueError(f"interval_seconds={interval_seconds}: expected 0 or more")
        if refresh_per_second <= 0:
            raise ValueError(f"refresh_per_second={refresh_per_second}: expected more than 0")
        self.interval_seconds = interval_seconds
        self.refresh_per_second = refresh_per_second
        self._given = console
        self._console = console
        self._enabled = True
        self._live: Live | None = None
        self._pace = Pace()
        self._outputs: STEP_OUTPUT = None
        self._written = -math.inf
        self._line_at, self._line_step = 0.0, -1
        self._evaluated = 0

    def enable(self) -> None:
        """Shows progress (again)."""
        self._enabled = True

    def disable(self) -> None:
        """Shows nothing, on ranks other than 0 or while Lightning searches for a learning rate."""
        self._enabled = False
        self._stop()

    def print(  # pyright: ignore[reportIncompatibleMethodOverride] - what ``LightningModule.print`` is called with
        self, *args: object, sep: str = " ", end: str = "\n"
    ) -> None:
        """Prints above the bar."""
        self._output().print(*args, sep=sep, end=end)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clocks."""
        self._pace = Pace(step=trainer.global_step)
        self._line_at = time.monotonic()
        self._start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Counts, and redraws when it is time to."""
        self._pace.count(samples=batch_size(batch) * trainer.world_size)
        now = time.monotonic()
        if self._live is not None:
            if now - self._written >= 1.0 / self.refresh_per_second:
                self._outputs = outputs
                self._draw(trainer, now)
        elif now - self._line_at >= _LONG_EPOCH * max(self.interval_seconds, 1.0):
            self._outputs = outputs
            self._write_line(trainer, now)
        if trainer.is_last_batch:
            self._outputs = outputs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes a plain line, unless the last one is fresh."""
        now = time.monotonic()
        if self._live is not None:
            self._draw(trainer, now)
        elif now - self._line_at >= self.interval_seconds:
            self._write_line(trainer, now)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the last state and gives the terminal back."""
        now = time.monotonic()
        if self._live is not None:
            self._draw(trainer, now)
        elif self._line_step != trainer.global_step:
            self._write_line(trainer, now)
        self._stop()
        self._outputs = None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Redraws when it is time to."""
        name = self.sanity_check_description if trainer.sanity_checking else self.validation_description
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._evaluate(name, batch_idx, batches)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Redraws when it is time to."""
        self._evaluate(self.test_description, batch_idx, trainer.num_test_batches)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Redraws when it is time to."""
        self._evaluate(self.predict_description, batch_idx, trainer.num_predict_batches)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the bar when validation runs on its own."""
        self._begin_evaluation()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the clock of the speed go on."""
        self._pace.evaluation_ends()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the bar."""
        self._begin_evaluation()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the bar."""
        self._begin_evaluation()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the terminal back."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the terminal back."""
        self._stop()

    def _output(self) -> Console:
        """The standard output of now: it may have been redirected since this object was made."""
        if self._given is not None:
            return self._given
        if self._live is None or self._console is None:
            self._console = Console()
        return self._console

    def _start(self) -> None:
        output = self._output()
        if self._enabled and self._live is None and output.is_terminal:
            self._live = Live(console=output, auto_refresh=False, transient=False)
            self._live.start()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _begin_evaluation(self) -> None:
        self._evaluated = 0
        self._pace.evaluation_begins()
        self._start()

    def _evaluate(self, name: str, batch_idx: int, batches: list[int | float] | int | float) -> None:
        self._evaluated += 1
        now = time.monotonic()
        total = sum(batches) if isinstance(batches, list) else batches
        last = self._evaluated == total
        if self._live is None or not (last or now - self._written >= 1.0 / self.refresh_per_second):
            return
        self._written = now
        self._live.update(_bar_line(name, self._evaluated, total, ""), refresh=True)

    def _draw(self, trainer: Trainer, now: float) -> None:
        assert self._live is not None
        self._written = now
        within, total = trainer.fit_loop.batch_idx + 1, trainer.num_training_batches
        facts = [*self._speed(trainer), memory_text(trainer.strategy.root_device)]
        head = _bar_line(_epoch_text(trainer), within, total, f"step {_step_text(trainer)}")
        self._live.update(
            Group(head, Text("  ".join([*facts, *self._values(trainer)]), overflow="ellipsis", no_wrap=True)),
            refresh=True,
        )

    def _write_line(self, trainer: Trainer, now: float) -> None:
        self._line_at, self._line_step = now, trainer.global_step
        if not self._enabled:
            return
        facts = [_epoch_text(trainer), f"step {_step_text(trainer)}", *self._values(trainer), *self._speed(trainer)]
        line = "  ".join([*facts, memory_text(trainer.strategy.root_device)])
        self._output().print(line, highlight=False, markup=False, soft_wrap=True)
        self._output().file.flush()

    def _speed(self, trainer: Trainer) -> list[str]:
        return self._pace.texts(step=trainer.global_step, total=_total_steps(trainer))

    def _values(self, trainer: Trainer) -> list[str]:
        """Loss of the last step, the metrics that asked to be shown, and the first ones of the last validation."""
        values: dict[str, float] = {}
        if isinstance(self._outputs, Mapping) and isinstance(loss := self._outputs.get("loss"), torch.Tensor):
            values["loss"] = float(loss)
        values.update({name: float(value) for name, value in trainer.progress_bar_metrics.items()})
        validated = [item for item in trainer.callback_metrics.items() if item[0].startswith("val/")]
        values.update({name: float(value) for name, value in validated[:_VALIDATION_METRICS]})
        return [f"{name} {value:.4g}" for name, value in values.items()]


def memory_text(device: torch.device) -> str:
    """Memory of this process: the peak on a CUDA device, else what is resident now (its peak outside Linux)."""
    if device.type == "cuda":
        return f"GPU peak {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
    statm = Path("/proc/self/statm")
    if statm.exists():
        resident = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return f"RAM {resident / 2**30:.1f} GiB"
    if sys.platform == "win32":
        return ""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return f"RAM peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB"


def _epoch_text(trainer: Trainer) -> str:
    limit = trainer.max_epochs
    if limit is None or limit < 1:
        return f"epoch {trainer.current_epoch + 1}"
    return f"epoch {min(trainer.current_epoch + 1, limit)}/{limit}"  # when training ends the count has moved on


def _step_text(trainer: Trainer) -> str:
    total = _total_steps(trainer)
    return f"{trainer.global_step}" + ("" if math.isinf(total) else f"/{total:.0f}")


def _total_steps(trainer: Trainer) -> float:
    """Optimizer steps of the whole run; infinite where nothing limits it."""
    limit = math.inf if trainer.max_steps == -1 else trainer.max_steps
    epochs = trainer.max_epochs
    if epochs is not None and epochs > 0:
        limit = min(limit, epochs * math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))
    return limit


def _bar_line(name: str, done: float, total: float, more: str) -> Table:
    line = Table.grid(padding=(0, 2), expand=False)
    known = not math.isinf(total)
    bar = Bar(total=total, completed=done, width=30) if known else Bar(pulse=True, width=30)
    line.add_row(Text(name, style="bold"), bar, Text(f"{done:.0f}/{total:.0f}" if known else f"{done:.0f}"), Text(more))
    return line
