"""What goes wrong in loading, as the training loop sees it: one error each, with sample, worker and traceback."""

from __future__ import annotations

import pickle
import signal
import traceback
from dataclasses import dataclass


class LoaderError(RuntimeError):
    """The engine cannot go on; the message says why."""


class WorkerDiedError(LoaderError):
    """A worker process ended without being asked to."""


class LoaderTimeoutError(LoaderError):
    """No batch within the deadline."""


class WorkerError(LoaderError):
    """An exception of a worker that cannot be sent between processes; the message has its type and text."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception on its way from a worker.

    Attributes:
        pickled: the exception itself; None where it cannot be pickled.
        told: its type and text.
        trace: formatted traceback, causes included.
        worker: number of the worker.
        pid: its process.
        row: which sample of its batch was at work.
    """

    pickled: bytes | None
    told: str
    trace: str
    worker: int
    pid: int
    row: int


def failure_of(error: BaseException, *, worker: int, pid: int, row: int) -> Failure:
    """Pack an exception for the way to the main process."""
    told = "".join(traceback.format_exception_only(error)).strip()
    trace = "".join(traceback.format_exception(error))
    try:
        pickled: bytes | None = pickle.dumps(error)
        pickle.loads(pickled)  # noqa: S301 - our own bytes; some exceptions can be dumped but not loaded
    except Exception:
        pickled = None
    return Failure(pickled, told, trace, worker, pid, row)


def exception_of(failure: Failure, *, sample: str) -> BaseException:
    """The worker's exception with a note that has its traceback.

    Args:
        failure: as it came.
        sample: description of the sample that was at work.

    Returns:
        The exception to raise: of its own type, or :class:`WorkerError`.
    """
    if failure.pickled is None:
        error: BaseException = WorkerError(failure.told)
    else:
        error = pickle.loads(failure.pickled)  # noqa: S301 - written by our own worker into memory without a name
    error.add_note(f"in worker {failure.worker} (pid {failure.pid}) at {sample}\n{failure.trace.rstrip()}")
    return error


def exit_text(exitcode: int | None) -> str:
    """What an exit code says.

    Example:
        >>> exit_text(-9)
        'was killed by signal 9 (SIGKILL; the kernel does so when memory is short)'
    """
    if exitcode is None:
        return "vanished"
    if exitcode >= 0:
        return f"exited unexpectedly with code {exitcode}"
    name = signal.Signals(-exitcode).name
    hint = "; the kernel does so when memory is short" if name == "SIGKILL" else ""
    return f"was killed by signal {-exitcode} ({name}{hint})"
