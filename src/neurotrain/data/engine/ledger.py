"""The run's list of bad samples: one line each, a file per rank, cut back where a run resumes, merged at the end."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neurotrain.data.engine.quarantine import BadSample
from neurotrain.documents import parse_json

LEDGER = "quarantine.jsonl"
"""Name of the merged file."""

_RANK = re.compile(r"quarantine\.rank(\d+)\.jsonl")


class Ledger:
    """Writes a rank's bad samples when their batch is handed out.

    A run that is killed has entries past its checkpoint; they are cut when it resumes, for it meets them again. Files
    of ranks that are no more are cut by those that are.

    Args:
        folder: of the run.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, *, folder: Path, rank: int = 0, world_size: int = 1) -> None:
        self._folder = folder
        self._rank, self._world_size = rank, world_size

    @property
    def path(self) -> Path:
        """This rank's file."""
        return self._folder / f"quarantine.rank{self._rank}.jsonl"

    def append(self, bad: Iterable[BadSample]) -> None:
        """Write entries, each whole or not at all."""
        lines = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in bad)
        if lines:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(lines.encode())

    def cut(self, *, epoch: int, step: int) -> list[BadSample]:
        """Remove what was written from a step of an epoch on.

        Returns:
            What was written before, in the order of the plan.
        """
        left: list[dict[str, Any]] = []
        for rank, path in _files(self._folder):
            if rank % self._world_size == self._rank:
                kept = [entry for entry in entries(path) if (entry["epoch"], entry["step"]) < (epoch, step)]
                _write(path, kept)
                left += kept
        return [BadSample(**entry) for entry in sorted(left, key=lambda entry: (entry["epoch"], entry["position"]))]

    def merge(self) -> Path:
        """Put all ranks' entries into one file, in the order of the plan; for one rank to do, when all have ended.

        Returns:
            The file; empty where no sample was bad.
        """
        return merge_ledgers(self._folder)


def merge_ledgers(folder: Path) -> Path:
    """Put all ranks' entries into ``quarantine.jsonl``, in the order of the plan; doing so twice changes nothing.

    Args:
        folder: of the run.

    Returns:
        The file; empty where no sample was bad.
    """
    found = {(entry["epoch"], entry["position"]): entry for _, path in _files(folder) for entry in entries(path)}
    merged = folder / LEDGER
    folder.mkdir(parents=True, exist_ok=True)
    _write(merged, [found[place] for place in sorted(found)])
    return merged


def entries(path: Path) -> list[dict[str, Any]]:
    """Entries of one file; a last line that a killed process left unfinished is not one."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [parse_json(line) for line in lines]


def _files(folder: Path) -> list[tuple[int, Path]]:
    found = [(_RANK.fullmatch(path.name), path) for path in folder.glob("quarantine.rank*.jsonl")]
    return sorted((int(match[1]), path) for match, path in found if match)


def _write(path: Path, kept: list[dict[str, Any]]) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in kept), encoding="utf-8")
    partial.replace(path)
