"""The index of runs: a cache in SQLite, made anew from the run directories whenever it is missing, torn or behind."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from neurotrain.app.runs.errors import RunsError
from neurotrain.app.runs.reading import RunFacts, find_runs, read_run, signature_of

NAME = ".index.sqlite"
VERSION = 1  # of the facts that rows hold
_WAIT = 10.0  # seconds for another process that writes


class RunIndex:
    """The facts of all runs under a folder.

    Each call looks at every run directory and reads those anew whose files have another time or size than the index
    knows. So the directories are the truth: the index may be deleted at any time, and several processes may use it at
    once; where it cannot be written (a folder to read only) everything is read from the directories.

    Args:
        runs_dir: folder of the runs.

    Raises:
        RunsError: if the folder is missing.
    """

    def __init__(self, *, runs_dir: Path) -> None:
        if not runs_dir.is_dir():
            raise RunsError(f"{runs_dir}: no such folder; --runs-dir names the one that holds the runs")
        self.runs_dir = runs_dir.resolve()
        self.path = self.runs_dir / NAME

    def runs(self) -> list[RunFacts]:
        """Return the facts of every run, by id."""
        known = self._load()
        found = {path.relative_to(self.runs_dir).as_posix(): path for path in find_runs(self.runs_dir)}
        facts: dict[str, RunFacts] = {}
        stale: dict[str, tuple[str, RunFacts]] = {}
        for run_id, path in found.items():
            signature = json.dumps(signature_of(path))
            row = known.get(run_id)
            kept = _parsed(row[1]) if row is not None and row[0] == signature else None
            facts[run_id] = kept or read_run(path, self.runs_dir)
            if kept is None:
                stale[run_id] = (signature, facts[run_id])
        gone = known.keys() - found.keys()
        if stale or gone:
            self._store(stale, gone)
        return [facts[run_id] for run_id in sorted(facts)]

    def _load(self) -> dict[str, tuple[str, str]]:
        """Signature and facts by id; nothing where there is no index that this version can read."""
        if not self.path.is_file():
            return {}
        try:
            with closing(self._connect()) as connection:
                if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                    return {}
                return {run_id: (mark, text) for run_id, mark, text in connection.execute("SELECT * FROM runs")}
        except sqlite3.Error:
            return {}

    def _store(self, stale: dict[str, tuple[str, RunFacts]], gone: Iterable[str]) -> None:
        """Write what has changed; an index that cannot be read is replaced, one that cannot be written is let be."""
        try:
            self._write(stale, gone)
        except sqlite3.OperationalError:
            return  # locked by another process, or a folder to read only: the next call reads once more
        except sqlite3.DatabaseError:
            with suppress(OSError, sqlite3.Error):
                for name in (NAME, f"{NAME}-journal"):
                    (self.runs_dir / name).unlink(missing_ok=True)
                self._write(stale, gone)

    def _write(self, stale: dict[str, tuple[str, RunFacts]], gone: Iterable[str]) -> None:
        with closing(self._connect()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                connection.execute("DROP TABLE IF EXISTS runs")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, signature TEXT, facts TEXT)")
            connection.executemany(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?)",
                [(run_id, mark, facts.to_json()) for run_id, (mark, facts) in stale.items()],
            )
            connection.executemany("DELETE FROM runs WHERE id = ?", [(run_id,) for run_id in gone])

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_WAIT)


def _parsed(text: str) -> RunFacts | None:
    try:
        return RunFacts.from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None  # a row that somebody else wrote
