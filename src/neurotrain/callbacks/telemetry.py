"""What the loader does behind the training: shares of the sources, waiting, queue, retries, caches, memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from neurotrain.callbacks.loader_metrics import LoaderMetric
from neurotrain.data import CountedLoader


class LoaderTelemetry(Callback):
    """Logs ``data/...`` of the training loader to the loggers, on rank 0.

    ``data/share/<source>`` and ``data/target/<source>`` in a mixture; ``data/wait_share`` of the time that the training
    waited for batches, ``data/queue_depth`` of batches that were ready, ``data/retried`` reads, ``data/replaced``
    samples, ``data/rss_bytes`` of this process and its workers, ``data/<counter>`` of the sources, such as hits of a
    cache. The loader counts anyway: a value costs its logging.
    """

    def __init__(self, *, every_n_steps: int = 50, metrics: Mapping[str, LoaderMetric] | None = None) -> None:
        """Set how often to log, and what else.

        Args:
            every_n_steps: batches between values.
            metrics: further values by name, logged as ``data/<name>/<value>``.

        Raises:
            ValueError: if it is below 1.
        """
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: expected 1 or more")
        self.every_n_steps = every_n_steps
        self.metrics = dict(metrics or {})

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Logs every ``every_n_steps``."""
        if (batch_idx + 1) % self.every_n_steps or not trainer.is_global_zero:
            return
        step = trainer.fit_loop.epoch_loop._batches_that_stepped  # pyright: ignore[reportPrivateUsage]
        for loader in training_loaders(trainer):
            told = loader.telemetry()
            more = {name: metric.values(told, loader=loader) for name, metric in self.metrics.items()}
            values = {f"data/{name}": value for name, value in flattened({**told, **more})}
            for logger in trainer.loggers:
                logger.log_metrics({**values, "epoch": float(trainer.current_epoch)}, step=step)


def training_loaders(trainer: Trainer) -> list[CountedLoader]:
    """The loaders of ours that a trainer trains from: planned and streamed ones."""
    combined = trainer.fit_loop._combined_loader  # pyright: ignore[reportPrivateUsage] - there is no public flat list
    return [] if combined is None else [loader for loader in combined.flattened if isinstance(loader, CountedLoader)]


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of nested mappings by path; lists are numbered, None is left out.

    Example:
        >>> list(flattened({"a": 1, "shares": {"x": 0.5}, "unknown": None}))
        [('a', 1.0), ('shares/x', 0.5)]
    """
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from flattened(value, f"{path}/")
        elif isinstance(value, list | tuple):
            yield from flattened({str(number): item for number, item in enumerate(value)}, f"{path}/")
        elif value is not None:
            yield path, float(value)
