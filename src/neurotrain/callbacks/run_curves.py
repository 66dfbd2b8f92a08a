"""The curves of a run, out of the table that it has written."""

from __future__ import annotations

from pathlib import Path

from lightning import Trainer

from neurotrain.callbacks.csv_logger import MetricsCsv, read_metrics
from neurotrain.callbacks.curves import curves_figure


def write_run_curves(trainer: Trainer, *, synthetic: bool = False) -> None:
    """Draw ``figures/curves.png`` from the run's ``metrics.csv``, on the first rank; nothing where there is no curve.

    Args:
        trainer: of the run.
        synthetic: whether its data were rendered, which the title then says.
    """
    if not trainer.is_global_zero:
        return
    run = Path(trainer.default_root_dir).absolute()
    for log in trainer.loggers:
        if isinstance(log, MetricsCsv):
            log.flush()
            title = f"{run.parent.name}/{run.name}"
            figure = curves_figure(read_metrics(log.path), title=title, synthetic=synthetic)
            if figure is not None:
                (run / "figures").mkdir(parents=True, exist_ok=True)
                figure.savefig(run / "figures" / "curves.png")
