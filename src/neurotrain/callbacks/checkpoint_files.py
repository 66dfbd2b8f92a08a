"""Names in a folder of checkpoints: a reader finds each complete or does not find it."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

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
    for path in folder.glob(hidden_name("*.ckpt")):
        path.unlink()


def find_last(folder: Path) -> Path | None:
    """Finds the checkpoint to resume from.

    Args:
        folder: ``checkpoints`` of a run directory; may be absent.

    Returns:
        ``last.ckpt``; if that is absent or torn (by a copy that broke off), the complete checkpoint of the highest
        step; None if there is none.
    """
    numbered = sorted(steps(folder).items(), reverse=True)
    for path in [folder / LAST, *(path for _, path in numbered)]:
        # torch's format is a zip file, whose directory comes last: it is there if the rest is.
        if path.is_file() and zipfile.is_zipfile(path):
            return path
    return None


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
