"""A pipeline's state on the terminal: a living table, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from neurotrain.app.pipelines.driver import PipelineDriver, State
from neurotrain.app.pipelines.instances import Instance

_COLOURS = {
    State.RUNNING: "cyan",
    State.FINISHED: "green",
    State.UNCHANGED: "green",
    State.FAILED: "red",
    State.BLOCKED: "yellow",
    State.INTERRUPTED: "yellow",
}


class Shown:
    """Shows a driver's tasks; its :meth:`update` is what the driver is given.

    Args:
        console: to show on.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(width=None if sys.stdout.isatty() else 160, highlight=False)
        self._live: Live | None = None
        self._driver: PipelineDriver | None = None

    @contextmanager
    def showing(self, driver: PipelineDriver) -> Generator[None]:
        """Show a driver's tasks while inside, and the whole table at the end."""
        self._driver = driver
        if not self.console.is_terminal:
            yield
            self.console.print(self.table(driver))
            return
        with Live(self.table(driver), console=self.console, refresh_per_second=4) as live:
            self._live = live
            yield
            live.update(self.table(driver), refresh=True)
        self._live = None

    def update(self, instance: Instance | None) -> None:
        """Show a task whose state has changed; without one only what time changes."""
        assert self._driver is not None
        if self._live is not None:
            self._live.update(self.table(self._driver))
        elif instance is not None:
            progress = self._driver.progress[instance.name]
            note = f" ({progress.note})" if progress.note else ""
            log = f"; log: {instance.folder / 'log.txt'}" if progress.state is State.FAILED else ""
            self.console.print(f"{instance.name}: {progress.state}{note}{log}", soft_wrap=True, markup=False)

    @staticmethod
    def table(driver: PipelineDriver) -> Table:
        """Return the table of all tasks."""
        table = Table()
        for name in ("task", "status", "attempts", "seconds", "note"):
            table.add_column(name, justify="right" if name in ("attempts", "seconds") else "left", overflow="fold")
        for instance in driver.instances:
            progress = driver.progress[instance.name]
            running = progress.state is State.RUNNING
            seconds = time.monotonic() - progress.began if running else progress.seconds
            colour = _COLOURS.get(progress.state, "default")
            row = ("" if progress.tries == 0 else str(progress.tries), "" if seconds is None else f"{seconds:.1f}")
            note = progress.note.replace("[", "\\[")
            name = instance.name.replace("[", "\\[")
            table.add_row(name, f"[{colour}]{progress.state}[/]", *row, note)
        return table
