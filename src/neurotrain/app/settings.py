"""The top level of a run's configuration: what is neither data, nor model, nor trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Where things lie.

    Attributes:
        data_dir: folder of the datasets, each under its own name (``DIR/DRIVE``).
        runs_dir: folder under which run directories are made.
        run_dir: this very run's directory; None makes ``<runs_dir>/<name>/<time>-<id>``.
    """

    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    run_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Substitute:
    """Another experiment that runs where this one's data are not on the machine.

    Attributes:
        path: what must exist under ``paths.data_dir``.
        experiment: the one to run instead.
        advice: one line that tells how to get the real data.
    """

    path: str
    experiment: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One run.

    Attributes:
        name: of the experiment; its runs lie under ``runs/<name>/``.
        data: what to learn from.
        model: the method with its network, loss and optimizer.
        trainer: Lightning's Trainer without what the run directory owns.
        callbacks: by name; null leaves one out.
        logger: by name; null leaves one out.
        paths: where things lie.
        stage: ``fit`` trains, then tests once where ``test`` says so.
        seed: of every random draw.
        test: whether ``stage=fit`` ends with one evaluation of the test set.
        test_weights: ``last`` tests the final weights (averaged where a callback averages), ``best`` those of the best
            monitored checkpoint.
        resume: ``last`` goes on with this experiment's newest run where there is one; ``must`` fails where there is
            none; a path names a run directory or a checkpoint.
        ckpt: checkpoint for ``stage=test|validate|predict|sample``.
        source: for ``stage=predict``: a folder, a glob or one image; the test split where not given.
        beside: for ``stage=sample``: checkpoints of further runs, in their run directories, by the name of their rows.
        compile: let ``torch.compile`` translate the blocks of the task; the first steps take longer.
        activation_checkpointing: compute the activations within blocks once more in the backward pass: less memory, a
            third more computation.
        matmul_precision: of float32 matrix products, as ``torch.set_float32_matmul_precision``.
        full_trace: whether a user's mistake is shown with its traceback.
        when_absent: what runs where the data are missing and neither ``data=`` nor ``paths.data_dir`` was typed.
    """

    name: str
    data: LightningDataModule
    model: LightningModule
    trainer: Trainer
    callbacks: dict[str, Callback | None]
    logger: dict[str, Logger | None]
    paths: Paths
    stage: Literal["fit", "validate", "test", "predict", "sample"] = "fit"
    seed: int = 0
    test: bool = True
    test_weights: Literal["last", "best"] = "last"
    resume: str | None = None
    ckpt: Path | None = None
    source: str | None = None
    beside: dict[str, Path] | None = None
    compile: bool = False
    activation_checkpointing: bool = False
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    full_trace: bool = False
    when_absent: Substitute | None = None
