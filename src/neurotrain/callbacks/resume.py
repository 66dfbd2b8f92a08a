"""What has to be known about Lightning's loops to stop and go on exactly.

Lightning resumes a checkpoint that was written between two steps of an epoch exactly. Three other places need care:

- A step after which validation runs: resumed there, Lightning would leave the validation out.
- The end of an epoch: with ``max_epochs`` the loader's state is not restored; with ``max_steps`` the end of the
  finished epoch is run once more, and without validation data a batch is trained in it.
- ``max_steps`` within an epoch: Lightning counts the broken-off epoch as finished, so that it is not gone on with.

Written for Lightning 2.6; the tests of this package compare stopped and unstopped runs and would notice a change.
"""

# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import Trainer

Position = Literal["within_epoch", "epoch_end", "broken_off"]
"""Where a checkpoint stands: between two steps; past an epoch; where an epoch was left before its end."""


def position(trainer: Trainer) -> Position:
    """Tells where the run stands; meant for moments at which no step is under way."""
    fit_loop = trainer.fit_loop
    progress = fit_loop.epoch_progress.total
    if progress.processed < progress.started:
        return "within_epoch"
    if fit_loop.epoch_loop._num_ready_batches_reached():
        return "epoch_end"
    out_of_steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    # Neither: the loader had fewer batches than it said, or the task left the rest of the epoch out.
    return "broken_off" if out_of_steps or trainer.should_stop else "epoch_end"


def moment(trainer: Trainer) -> tuple[int, int, int]:
    """Optimizer steps, batches and epochs done: equal if nothing happened between two calls."""
    fit_loop = trainer.fit_loop
    batches = fit_loop.epoch_loop.batch_progress.total.completed
    return trainer.global_step, batches, fit_loop.epoch_progress.total.processed


def has_validated(trainer: Trainer) -> bool:
    """Whether a validation of this fit has scored at least one batch."""
    return trainer.fit_loop.epoch_loop.val_loop._has_run


def is_trial(trainer: Trainer) -> bool:
    """Whether this is Lightning's ``fast_dev_run``, which leaves no files."""
    return bool(trainer.fast_dev_run)


def between_steps(trainer: Trainer) -> bool:
    """Whether a checkpoint written now could be resumed exactly: no batch, gradient or epoch end is half done."""
    fit_loop = trainer.fit_loop
    batches = fit_loop.epoch_loop.batch_progress.current
    if not trainer.training or batches.ready != batches.completed or fit_loop.epoch_loop._should_accumulate():
        return False
    epoch_ends = fit_loop.epoch_loop._num_ready_batches_reached() and batches.ready > 0
    return not (epoch_ends and position(trainer) == "within_epoch")


def boundary_follows(trainer: Trainer) -> bool:
    """Whether validation or the epoch's end comes right after the present batch (asked in ``on_train_batch_end``)."""
    fit_loop = trainer.fit_loop
    assert fit_loop._data_fetcher is not None
    return fit_loop.epoch_loop._num_ready_batches_reached() or fit_loop.epoch_loop._should_check_val_fx(
        fit_loop._data_fetcher
    )


def amend(checkpoint: dict[str, Any], where: Position) -> None:
    """Corrects the loop state of a checkpoint that is about to be written.

    Args:
        checkpoint: Lightning's; changed in place.
        where: position at which it is written.
    """
    if where == "broken_off":
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for counts in (epochs["total"], epochs["current"]):
            counts["processed"] = counts["completed"] = counts["started"] - 1


def loader_states(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """States of the training loaders in a checkpoint; empty where they have none."""
    return checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])


def log_now(trainer: Trainer) -> None:
    """Lets the loggers have the values of the step or epoch that ends.

    Lightning hands them over after the callbacks, hence after a checkpoint was written: a run that is killed and
    resumed there would lack them. It hands them over once more; :class:`MetricsCsv` writes equal values once.
    """
    connector = trainer._logger_connector
    if connector._first_loop_iter is None:
        connector.log_metrics(connector.metrics["log"])
    else:
        connector.update_train_step_metrics()


def load_left_out(trainer: Trainer) -> None:
    """Gives the loaders their states where Lightning left that out.

    It does so when it makes the loaders. Where ``trainer.estimated_stepping_batches`` was asked for in
    ``configure_optimizers``, as any schedule with a horizon does, they are made before the checkpoint is read.
    """
    fit_loop = trainer.fit_loop
    states, fit_loop._combined_loader_states_to_load = fit_loop._combined_loader_states_to_load, []
    if states and fit_loop._combined_loader is not None:
        assert fit_loop._data_fetcher is not None
        fit_loop._combined_loader._load_state_dicts(states)
        iter(fit_loop._data_fetcher)  # the iterator of before may have begun without the state


def begin_next_epoch(trainer: Trainer, states: list[dict[str, Any]]) -> None:
    """Lets a run that was restored from the end of an epoch begin the next one (asked in ``on_train_start``).

    Args:
        trainer: restored.
        states: from :func:`loader_states`.
    """
    fit_loop = trainer.fit_loop
    for progress in (fit_loop.epoch_progress.total, fit_loop.epoch_progress.current):
        progress.completed = progress.processed
    fit_loop._restarting = False  # its property setter refuses under max_steps
    fit_loop.epoch_loop.restarting = False
    fit_loop.reset_restart_stage()
    fit_loop.epoch_loop.reset_restart_stage()
    # With this, the epoch loop makes a new iterator of the loaders, after it told them the epoch.
    fit_loop._resuming_from_checkpoint = False
    assert fit_loop._combined_loader is not None
    if states:
        fit_loop._combined_loader._load_state_dicts(states)
