"""Removal of runs, which cannot reach anything else."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from neurotrain.app.runs.errors import RunsError
from neurotrain.app.runs.reading import RunFacts, find_runs, read_run
from neurotrain.app.runs.status import status_of


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much a removal takes away.

    Attributes:
        files: how many.
        size: of them in bytes.
    """

    files: int
    size: int


def removable(runs_dir: Path, facts: RunFacts) -> Path:
    """Return the directory of a run that may be removed.

    Args:
        runs_dir: folder of all runs.
        facts: of the run, whose status is asked for anew.

    Raises:
        RunsError: if it is running, lies outside, or is reached by a symbolic link.
    """
    root = runs_dir.resolve()
    path = root
    parts = Path(facts.id).parts
    if not parts or any(part in ("..", "/") for part in parts) or Path(facts.id).is_absolute():
        raise RunsError(f"{facts.id}: not inside {root}")
    for part in parts:
        path = path / part
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            raise RunsError(f"{path}: no such run") from None
        if not stat.S_ISDIR(mode):
            raise RunsError(f"{path}: a symbolic link, or no folder: remove it by hand")
    if path not in find_runs(path):
        raise RunsError(f"{path}: no run directory")
    if status_of(read_run(path, root)) == "running":
        raise RunsError(f"{facts.id} is running: stop it first")
    return path


def extent(path: Path) -> Extent:
    """Count the files of a folder and their bytes; what symbolic links point to does not count."""
    files = size = 0
    for folder, _, names in os.walk(path, followlinks=False):
        for name in names:
            files += 1
            size += os.lstat(Path(folder) / name).st_size
    return Extent(files=files, size=size)


def remove(runs_dir: Path, facts: RunFacts) -> None:
    """Remove a run's directory; symbolic links in it are removed, not what they point to.

    The directory is renamed first, so that a removal that is killed leaves no half of a run in the lists.

    Raises:
        RunsError: as :func:`removable`.
    """
    path = removable(runs_dir, facts)
    doomed = path.with_name(f".removed-{path.name}-{secrets.token_hex(3)}")
    path.rename(doomed)
    shutil.rmtree(doomed)
