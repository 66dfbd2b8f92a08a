"""``neurotrain find-batch-size``: the largest batch that trains within the memory, found by real steps."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_GIB = 1 << 30
_TOLERANCE = 1 / 32


@dataclass(frozen=True)
class Attempt:
    """What came of one batch size.

    Attributes:
        batch_size: samples.
        fits: whether its steps were done within the memory.
        peak: bytes that were allocated at most: of the accelerator, or of the process where there is none.
        seconds: of one step, after the first.
        reason: why it does not fit; empty if it does.
    """

    batch_size: int
    fits: bool
    peak: int = 0
    seconds: float = 0.0
    reason: str = ""


def search(
    attempt: Callable[[int], Attempt], *, start: int = 1, maximum: int = 65536, tolerance: float = _TOLERANCE
) -> int | None:
    """Double until it does not fit, then bisect.

    Args:
        attempt: tries one batch size.
        start: first one to try.
        maximum: none larger is tried.
        tolerance: bisecting ends where the smallest that does not fit is larger by at most this share, or by 1.

    Returns:
        The largest that was tried and fits; None if not even ``start`` does.

    Raises:
        ValueError: unless ``1 <= start <= maximum`` and ``tolerance`` is in [0, 1).

    Example:
        >>> search(lambda size: Attempt(size, fits=size <= 37))
        37
        >>> search(lambda size: Attempt(size, fits=size <= 100_000), start=1024, maximum=1_000_000)
        98304
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance={tolerance}: expected 0 or more, below 1")
    if not 1 <= start <= maximum:
        raise ValueError(f"start={start}: expected 1 to maximum={maximum}")
    fits, size = 0, start
    while size <= maximum and attempt(size).fits:
        fits, size = size, size * 2
    if fits == 0:
        return None
    too_large = min(size, maximum + 1)
    while too_large - fits > max(1, int(fits * tolerance)):
        middle = (fits + too_large) // 2
        if attempt(middle).fits:
            fits = middle
        else:
            too_large = middle
    return fits


def try_batch_size(
    experiment: str,
    overrides: Sequence[str],
    batch_size: int,
    *,
    key: str = "data.batch_size",
    steps: int = 3,
    memory: int | None = None,
    seconds: float = 600.0,
) -> Attempt:
    """Train a few steps in a process of its own, which takes weights, random states and memory with it when it ends.

    Args:
        experiment: name under ``configs/experiment``.
        overrides: as on ``train.py``.
        batch_size: to try.
        key: setting that holds it.
        steps: optimizer's steps; the second one is the first with the optimizer's state.
        memory: bytes that the process may use; None leaves it to the device.
        seconds: after which it counts as not fitting.
    """
    from neurotrain.app.batch_trial import run_trial

    # Forked from a server that never touches an accelerator; CUDA does not survive a fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["neurotrain.app.batch_trial"])
    ours, theirs = context.Pipe(duplex=False)
    given = [*overrides, f"{key}={batch_size}"]
    process = context.Process(target=run_trial, args=(theirs, experiment, given, steps, memory))
    process.start()
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(seconds) else f"no answer within {seconds:g} s"
    except EOFError:
        process.join()
        answer = _ended(process.exitcode or 0)
    finally:
        ours.close()
        process.kill()
        process.join()
        process.close()
    if isinstance(answer, str):
        return Attempt(batch_size, fits=False, reason=answer)
    if isinstance(answer, BaseException):
        raise answer
    peak, per_step = answer
    if memory is not None and peak > memory:
        return Attempt(batch_size, fits=False, peak=peak, reason=f"{_gib(peak)} are more than {_gib(memory)}")
    return Attempt(batch_size, fits=True, peak=peak, seconds=per_step)


def _ended(code: int) -> str | ValueError:
    """What an end without an answer means: a signal is lack of memory in the kernel or in C, a code is a mistake."""
    if code < 0:
        return f"the process ended by signal {-code}; 9 is the kernel's word for no memory"
    return ValueError(f"the process ended with code {code} before it trained: its own error is above")


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"


def add_batch_size_command(commands: Any) -> None:  # noqa: ANN401 - argparse does not name its type in public
    """Add ``find-batch-size`` to the subparsers of a command line."""
    parser = commands.add_parser("find-batch-size", help="largest batch that trains within the memory, by real steps")
    parser.add_argument("experiment", help="experiment=NAME")
    parser.add_argument("overrides", nargs="*", help="as on train.py")
    parser.add_argument("--memory", type=float, help="GiB of one process; needed where there is no accelerator")
    parser.add_argument("--start", type=int, default=1, help="first size to try")
    parser.add_argument("--maximum", type=int, default=65536, help="largest size to try")
    parser.add_argument(
        "--tolerance", type=float, default=_TOLERANCE, help="share by which a larger one that fits may be missed"
    )
    parser.add_argument("--steps", type=int, default=3, help="optimizer's steps of each try")
    parser.add_argument("--key", default="data.batch_size", help="setting that holds the batch size")
    parser.set_defaults(run=_find)


def _find(parsed: argparse.Namespace) -> int:
    from neurotrain.app.compose import compose

    name = parsed.experiment.removeprefix("experiment=")
    accelerator = compose(name, parsed.overrides).values["trainer"]["accelerator"]
    if accelerator == "cpu" and parsed.memory is None:
        raise ValueError("trainer.accelerator=cpu has no memory of its own: say how much may be used, --memory GIB")
    memory = None if parsed.memory is None else int(parsed.memory * _GIB)

    def attempt(batch_size: int) -> Attempt:
        found = try_batch_size(name, parsed.overrides, batch_size, key=parsed.key, steps=parsed.steps, memory=memory)
        rate = f"{found.batch_size / found.seconds:.1f} samples/s" if found.fits and found.seconds else found.reason
        size = _gib(found.peak) if found.peak else ""
        sys.stdout.write(f"{found.batch_size:>7}  {'fits' if found.fits else 'too large':<9}  {size:>10}  {rate}\n")
        sys.stdout.flush()
        return found

    best = search(attempt, start=parsed.start, maximum=parsed.maximum, tolerance=parsed.tolerance)
    if best is None:
        sys.stderr.write(f"error: not even {parsed.key}={parsed.start} fits\n")
        return 1
    bound = "" if best < parsed.maximum else "  # the largest that was to be tried, --maximum"
    sys.stdout.write(f"{parsed.key}={best}{bound}\n")
    return 0
