"""``python train.py experiment=…``: compose, check, run, and leave a run directory that can be trusted."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.profilers import PassThroughProfiler

from neurotrain.app.allow import AllowList
from neurotrain.app.compose import UNBOUND, Configuration
from neurotrain.app.ranks import RUN_DIR_VARIABLE, agreed, is_first_rank
from neurotrain.app.registry import register
from neurotrain.app.run_directory import ResumeError, RunDirectory, detach_log, locate
from neurotrain.app.runs.process import recorded
from neurotrain.app.sampling import sample
from neurotrain.app.secrets import HidingFormatter, Secrets
from neurotrain.app.strict import ConfigurationError, Problem, instantiate
from neurotrain.app.summary import final_table, summarize
from neurotrain.callbacks import DiskFullError, NonFiniteLossError
from neurotrain.data import PlannedDataModule
from neurotrain.storage import StorageError
from neurotrain.storage.tensors import check_checkpoint, read_state
from neurotrain.strategies.blocks import compile_blocks, recompute_activations

logger = logging.getLogger(__name__)

MISTAKES = (ValueError, ImportError, FileNotFoundError, NonFiniteLossError, StorageError, DiskFullError)
"""What a user can mend: shown as one message; the traceback is in ``log.txt``, and shown with ``debug=``."""


@dataclass(frozen=True)
class Run:
    """What a run leaves in memory.

    Attributes:
        metrics: final figures, as in ``summary.json``.
        directory: the run directory.
        trainer: Lightning's Trainer after its last stage.
        model: the trained task.
        data: its data module.
        predictions: of ``stage=predict`` where they were kept, else None.
    """

    metrics: dict[str, float]
    directory: Path
    trainer: Trainer
    model: LightningModule
    data: LightningDataModule
    predictions: list[Any] | None = None


def train(config: Configuration, *, keep_predictions: bool = True) -> Run:
    """Run a checked configuration: fit, validate, test, predict or sample, as ``config.values["stage"]`` says.

    Args:
        config: from ``neurotrain.compose``.
        keep_predictions: whether ``stage=predict`` returns all probabilities and labels: some 4 MB an image of DRIVE.

    Returns:
        Metrics and live objects.

    Raises:
        ConfigurationError: if a constructor refuses its values.
        CheckpointError: if a checkpoint holds more than tensors and plain values.
        DatasetError: if the data are not as they should be.
        ResumeError: if there is nothing to resume from.
        NonFiniteLossError: if the loss became NaN or infinite.

    Example:
        >>> import neurotrain
        >>> config = neurotrain.compose("drive_unet", ["debug=fast"])  # doctest: +SKIP
        >>> neurotrain.train(config).metrics["test/dice"]  # doctest: +SKIP
    """
    _check_stage(config.values)
    directory = agreed(partial(_begun, config), num_nodes=config.values["trainer"]["num_nodes"])
    values = config.bound_to(directory.path)
    torch.set_float32_matmul_precision(values["matmul_precision"])
    seed_everything(values["seed"], workers=True, verbose=False)
    spare_checks()
    here = recorded(directory.path, first_rank=is_first_rank())
    with here, _logged(directory, Secrets.of(config.raw)), _shared_with_ranks(directory.path):
        _announce(config, directory)
        data, model, trainer = _build(values, directory)
        started = time.monotonic()
        predictions = _run_stage(values, trainer, model, data, directory, keep_predictions=keep_predictions)
        summary = summarize(values, directory, trainer, model, data, seconds=time.monotonic() - started)
        if trainer.is_global_zero:
            final_table(summary, directory.path)
    return Run(summary["metrics"], directory.path, trainer, model, data, predictions)


def _check_stage(values: Mapping[str, Any]) -> None:
    """Refuse what a stage lacks and what has no effect in it, before there is a run directory."""
    stage, ckpt, source = values["stage"], values["ckpt"], values["source"]
    read = values["data"].get("source")
    problems: list[Problem] = []
    if stage != "predict" and (source is not None or read is not None):
        key = "source" if source is not None else "data.source"
        problems.append(Problem(key, f"has no effect with stage={stage}, only with stage=predict", None))
    elif source != read and source is not None:
        problems.append(Problem("source", f"has no effect: data.source is {read}, not ${{source}}", None))
    if stage != "sample" and values["beside"] is not None:
        problems.append(Problem("beside", f"has no effect with stage={stage}, only with stage=sample", None))
    if stage != "fit" and ckpt is None:
        problems.append(Problem("ckpt", f"stage={stage} needs ckpt=PATH, a checkpoint of a run", None))
    elif ckpt is not None and not Path(ckpt).is_file():
        problems.append(Problem("ckpt", f"no checkpoint at {ckpt}", None))
    if stage != "fit" and values["activation_checkpointing"]:
        told = f"has no effect with stage={stage}, only with stage=fit"
        problems.append(Problem("activation_checkpointing", told, None))
    if problems:
        raise ConfigurationError(problems)


def _begun(config: Configuration) -> RunDirectory:
    """Find the run's directory; on the first process, write there what the run was told."""
    directory = _directory(config.values)
    for checkpoint in filter(None, (config.values["ckpt"], directory.checkpoint)):
        check_checkpoint(Path(checkpoint))
    if is_first_rank():
        directory.write_start(config)
    return directory


def _directory(values: Mapping[str, Any]) -> RunDirectory:
    paths = values["paths"]
    run_dir = None if paths["run_dir"] == str(UNBOUND) else paths["run_dir"]
    run_dir = os.environ.get(RUN_DIR_VARIABLE, run_dir)
    resume = values["resume"]
    if resume is not None and values["stage"] != "fit":
        raise ResumeError(f"resume={resume} has no effect with stage={values['stage']}: use ckpt=PATH")
    if RUN_DIR_VARIABLE in os.environ and resume is None:
        return RunDirectory(Path(os.environ[RUN_DIR_VARIABLE]))
    return locate(
        name=values["name"],
        runs_dir=Path(paths["runs_dir"]),
        run_dir=None if run_dir is None else Path(run_dir),
        resume=resume,
    )


def _build(values: Mapping[str, Any], directory: RunDirectory) -> tuple[LightningDataModule, LightningModule, Trainer]:
    allow = register()
    data = instantiate(values["data"], allow=allow, key="data")
    model = instantiate(values["model"], allow=allow, key="model")
    if values["compile"]:
        compile_blocks(model)
    if values["activation_checkpointing"]:  # last: what is compiled is recomputed
        recompute_activations(model)
    callbacks = _members(values["callbacks"], allow, "callbacks")
    loggers = _members(values["logger"], allow, "logger")
    factory = trainer_factory(values)
    assert isinstance(data, LightningDataModule)
    assert isinstance(model, LightningModule)
    assert all(isinstance(callback, Callback) for callback in callbacks)
    assert all(isinstance(log, Logger) for log in loggers)
    trainer = factory(
        callbacks=callbacks,
        logger=loggers or False,
        default_root_dir=str(directory.path),
        enable_checkpointing=any(isinstance(callback, _checkpoint_type()) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, _progress_type()) for callback in callbacks),
    )
    assert isinstance(trainer, Trainer)
    return data, model, trainer


def trainer_factory(values: Mapping[str, Any]) -> Callable[..., Trainer]:
    """Return Lightning's Trainer with the configuration's arguments; callbacks, logger and folder are still to give."""
    factory = instantiate({**values["trainer"], "_partial_": True}, allow=register(), key="trainer")
    return factory if values["trainer"]["profiler"] is not None else partial(factory, profiler=NoProfiler())


def _members(nodes: Mapping[str, Any], allow: AllowList, key: str) -> list[Any]:
    return [instantiate(node, allow=allow, key=f"{key}.{name}") for name, node in nodes.items() if node is not None]


def _checkpoint_type() -> type:
    from lightning.pytorch.callbacks import Checkpoint

    return Checkpoint


def _progress_type() -> type:
    from lightning.pytorch.callbacks import ProgressBar

    return ProgressBar


def _run_stage(
    values: Mapping[str, Any],
    trainer: Trainer,
    model: LightningModule,
    data: LightningDataModule,
    directory: RunDirectory,
    *,
    keep_predictions: bool,
) -> list[Any] | None:
    stage, ckpt = values["stage"], values["ckpt"]
    if stage == "fit":
        if ckpt is not None:
            _load_weights(model, Path(ckpt))
        resume_from = None if directory.checkpoint is None else str(directory.checkpoint)
        trainer.fit(model, datamodule=data, ckpt_path=resume_from, weights_only=True)
        if values["test"] and not trainer.interrupted and _has_test_split(data):
            best = str(directory.checkpoints / "best.ckpt") if values["test_weights"] == "best" else None
            trainer.test(model, datamodule=data, ckpt_path=best, verbose=False, weights_only=True)
        return None
    if stage == "validate":
        trainer.validate(model, datamodule=data, ckpt_path=ckpt, verbose=False, weights_only=True)
        return None
    if stage == "test":
        trainer.test(model, datamodule=data, ckpt_path=ckpt, verbose=False, weights_only=True)
        return None
    if stage == "sample":
        data.prepare_data()
        data.setup("test")  # for the summary, which says what data the run knows
        sample(values, trainer, model, directory.path)
        return None
    keep = None if keep_predictions else False  # None: wherever the strategy can return them
    return trainer.predict(model, datamodule=data, ckpt_path=ckpt, return_predictions=keep, weights_only=True)


def _has_test_split(data: LightningDataModule) -> bool:
    if isinstance(data, PlannedDataModule) and not data.has_test_split:
        logger.warning("%s has no labelled test split: the run ends without a test", data.title)
        return False
    return True


def _load_weights(model: LightningModule, path: Path) -> None:
    """Start a new run from another run's weights: everything that fits by name and shape, and nothing else."""
    model.load_state_dict(read_state(path), strict=True)


def _announce(config: Configuration, directory: RunDirectory) -> None:
    values = config.values
    if config.notice is not None:
        logger.warning(config.notice)
    verb = "resumes" if directory.checkpoint is not None else "runs"
    logger.info(
        "%s %s in %s (seed %s, stage %s)",
        values["name"],
        verb,
        directory.path,
        values["seed"],
        values["stage"],
    )
    if directory.checkpoint is not None:
        logger.info("going on from %s", directory.checkpoint.resolve().name)


class NoProfiler(PassThroughProfiler):
    """Profiles nothing, at no cost; Lightning's own makes a generator for each hook of each callback."""

    def profile(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, action_name: str
    ) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return _NOTHING


_NOTHING = nullcontext()


def spare_checks() -> None:
    """Leave out two safety nets that cost time at every step and catch nothing here."""
    # Under deterministic algorithms torch fills fresh memory with NaN; no kernel of ours reads what it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    if not torch.cuda.is_available():
        # Lightning asks for the slow check, which each Adam step repeats (0.1 ms).
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


@contextmanager
def _logged(directory: RunDirectory, secrets: Secrets) -> Generator[None]:
    """Show our records on the terminal, Lightning's warnings too, and keep everything in ``log.txt``."""
    ours, theirs = logging.getLogger("neurotrain"), logging.getLogger("lightning.pytorch")
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(HidingFormatter("%(message)s", secrets))
    ours.setLevel(logging.INFO)
    if is_first_rank():
        ours.addHandler(terminal)
    earlier = [(handler, handler.level) for handler in theirs.handlers]
    for handler in theirs.handlers:
        handler.setLevel(logging.WARNING)
    file = directory.attach_log(secrets)
    try:
        with warnings.catch_warnings():
            # Decoded samples are held in memory: more workers would only contend with the training for the cores.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # An empty list of loaders says on purpose that nothing is held out.
            warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero.*")
            # Lightning 2.6 over torch 2.15's pytree.
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    except Exception:
        file.emit(_failure_record())
        raise
    finally:
        detach_log(file)
        ours.removeHandler(terminal)
        for handler, level in earlier:
            handler.setLevel(level)


def _failure_record() -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.ERROR, __file__, 0, "the run stopped", None, sys.exc_info())


@contextmanager
def _shared_with_ranks(path: Path) -> Generator[None]:
    """Let processes that Lightning launches for other ranks find this run's directory."""
    earlier = os.environ.get(RUN_DIR_VARIABLE)
    os.environ[RUN_DIR_VARIABLE] = str(path)
    try:
        yield
    finally:
        if earlier is None:
            del os.environ[RUN_DIR_VARIABLE]
        else:
            os.environ[RUN_DIR_VARIABLE] = earlier


__all__ = ["MISTAKES", "Run", "spare_checks", "train", "trainer_factory"]
