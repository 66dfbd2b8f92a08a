"""Names in a folder of checkpoints: a reader finds each complete or does not find it."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from neurotrain.callbacks.checkpoint_marks import damage, is_sound_archive, unmark

log = logging.getLogger(__name__)

LAST = "last.ckpt"
BEST = "best.ckpt"
_STEP = re.compile(r"step-(\d{8,})\.ckpt")


def step_name(step: int) -> str:
    """File name of the checkpoint of a step, such as ``step-00000123.ckpt``."""
    return f"step-{step:08d}.ckpt"


def hidden_name(name: str) -> str:
    """Name under which a file is written until it is complete."""
    return f".{name}.tmp"


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed process left half written."""
    for name in ("*.ckpt", "*.whole"):
        for path in folder.glob(hidden_name(name)):
            path.unlink()


def remove(path: Path) -> None:
    """Removes a checkpoint and, before it, the marker that calls it whole."""
    unmark(path)
    path.unlink()


def find_last(folder: Path) -> Path | None:
    """Finds the checkpoint to resume from; what is passed over is said in one warning.

    Args:
        folder: ``checkpoints`` of a run directory; may be absent.

    Returns:
        The checkpoint of the highest step that is byte for byte what its completeness marker says. Where none is, as in
        a folder from which one file was copied, ``last.ckpt`` or the highest step whose own checksums fit. Else None.
    """
    numbered = [path for _, path in sorted(steps(folder).items(), reverse=True)]
    passed: list[str] = []
    for path in numbered:
        wrong = damage(path)
        if wrong is None:
            _tell(passed, path)
            return path
        passed.append(f"{path.name} {wrong}")
    for path in [folder / LAST, *numbered]:
        if path.is_file() and is_sound_archive(path):
            _tell(passed, path)
            return path
    _tell(passed, None)
    return None


def _tell(passed: list[str], chosen: Path | None) -> None:
    if passed:
        instead = "there is no whole one" if chosen is None else f"{chosen.name} is the newest whole one"
        log.warning("checkpoints passed over: %s; %s", "; ".join(passed), instead)


def steps(folder: Path) -> dict[int, Path]:
    """Checkpoints in a folder by their step."""
    found = ((_STEP.fullmatch(path.name), path) for path in folder.glob("step-*.ckpt"))
    return {int(match[1]): path for match, path in found if match is not None}


def publish(temporary: Path, path: Path) -> None:
    """Gives a written file its name once all of it is on the disk."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def link(target: Path, name: str) -> None:
    """Lets ``name``, beside ``target``, be that file; a reader finds the old one or the new one."""
    temporary = target.with_name(hidden_name(name))
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(target)
    except OSError:  # the file system has no hard links
        temporary.symlink_to(target.name)
    temporary.replace(target.with_name(name))
    # A rename onto another link of the same file does nothing at all (POSIX), not even remove its source.
    temporary.unlink(missing_ok=True)
    _sync(target.parent)


def _sync(path: Path) -> None:
    """Asks the system to have a file, or the names in a folder, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
