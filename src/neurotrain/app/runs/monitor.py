"""``neurotrain monitor RUN``: a run watched from another terminal, by its directory alone."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from neurotrain.app.runs.looks import Look, look

if TYPE_CHECKING:
    from rich.table import Table


def monitor(run_dir: Path, *, once: bool, as_json: bool, every: float) -> int:
    """Show a run until it ends, or once.

    Args:
        run_dir: to read; nothing is written there.
        once: print one look and return.
        as_json: print it for programs.
        every: seconds between two looks.

    Returns:
        0, or 1 where the run has failed.
    """
    from rich.console import Console
    from rich.live import Live

    seen = look(run_dir)
    if as_json:
        from neurotrain.app.runs.tables import print_json

        values = asdict(seen)
        values["metrics"] = {name: value if math.isfinite(value) else None for name, value in seen.metrics.items()}
        print_json(values)
    elif once:
        Console(width=None if sys.stdout.isatty() else 200).print(look_table(seen), highlight=False)
    else:
        with Live(look_table(seen), auto_refresh=False) as live:
            while seen.status == "running":
                time.sleep(every)
                seen = look(run_dir)
                live.update(look_table(seen), refresh=True)
    return 1 if seen.status == "failed" else 0


def look_table(seen: Look) -> Table:
    """Return a look as two columns."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("run", escape(seen.run))
    table.add_row("status", seen.status + (", resumable" if seen.resumable else ""))
    if seen.step is not None:
        whole = "" if seen.total_steps is None else f" of {seen.total_steps}"
        epoch = "" if seen.epoch is None else f", epoch {seen.epoch + 1}"
        table.add_row("step", f"{seen.step}{whole}{epoch}")
    if seen.samples_per_second is not None:
        table.add_row("speed", f"{seen.samples_per_second:.3g} samples/s")
    if seen.seconds_left is not None:
        table.add_row("time left", f"about {_clock(seen.seconds_left)}")
    table.add_row("last change", f"{_clock(seen.silent_seconds)} ago")
    for name, value in seen.usage.items():
        table.add_row(name, escape(value))
    for name, value in seen.metrics.items():
        if not name.startswith("throughput/"):
            table.add_row(escape(name), f"{value:.6g}")
    return table


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
