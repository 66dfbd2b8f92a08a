"""What has become of a run: finished, failed, running or interrupted."""

from __future__ import annotations

import time
from typing import Literal

from neurotrain.app.runs.reading import RunFacts

Status = Literal["finished", "failed", "running", "interrupted"]
"""``interrupted``: its process is gone without a word (killed, a crashed machine), or was asked to stop."""

STATUSES: tuple[Status, ...] = ("finished", "failed", "running", "interrupted")

SILENCE = 3600.0
"""Seconds without any change after which a run on another machine, whose processes cannot be asked, counts as gone."""


def status_of(facts: RunFacts, *, now: float | None = None) -> Status:
    """Tell a run's status; it is asked for anew each time, since processes die without a word.

    Args:
        facts: of the run.
        now: seconds since the epoch; the present where not given.

    Returns:
        What the process said at its end. One that said nothing is ``running`` while it is alive on this machine, or,
        on another one, while its files change. Runs without a record: by their summary and their log.
    """
    record = facts.process
    if record is None:
        if facts.finished:
            return "finished"
        return "failed" if facts.log_tells_failure else "interrupted"
    if record.outcome != "running":
        return record.outcome
    if record.is_here:
        return "running" if record.is_alive() else "interrupted"
    present = time.time() if now is None else now
    return "running" if present - facts.changed < SILENCE else "interrupted"


def is_resumable(facts: RunFacts, status: Status) -> bool:
    """Whether ``resume=`` has a checkpoint to go on from and something left to do."""
    return status in ("failed", "interrupted") and facts.has_checkpoint
