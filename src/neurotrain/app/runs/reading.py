"""Facts of a run, read from its directory: nothing else knows them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neurotrain.app.runs.process import NAME as PROCESS
from neurotrain.app.runs.process import ProcessRecord, read_record
from neurotrain.app.runs.rows import METRICS, last_values
from neurotrain.documents import parse_json, parse_yaml

_READ = ("config.yaml", "overrides.txt", "environment.json", "summary.json", METRICS, PROCESS, "log.txt")
_MARK = "config.yaml"
_DEPTH = 4  # runs/<experiment>/<run>, and what a sweep or a typed paths.run_dir puts in between
_LOG_END = 65536  # bytes

Value = str | int | float | bool | None
Signature = tuple[tuple[str, int, int], ...]
"""Name, time of change in ns and size of each file that facts are read from."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run directory says.

    Attributes:
        id: path under the folder of all runs, such as ``drive_unet/20260730-101500-a1b2c3``.
        experiment: its ``name``, or the first folder where the configuration cannot be read.
        stage: ``fit``, ``test``, …
        seed: of the run.
        started: ISO time of its last start; None where unknown.
        changed: seconds since the epoch of the newest change.
        metrics: final figures of the summary and, for what it lacks, the last ones that were logged.
        parameters: leaves of the configuration by their dotted names, interpolations unresolved.
        overrides: what was typed at the last start.
        environment: versions, device and git state, by dotted names.
        data: fingerprint and name of the data, where there is a summary.
        wall_seconds: of all processes that reached their end.
        process: that worked here last.
        finished: whether there is a summary that is not older than the last start.
        log_tells_failure: whether the log's end tells of an exception.
        has_checkpoint: whether there is one to go on from.
    """

    id: str
    experiment: str
    stage: str | None
    seed: int | None
    started: str | None
    changed: float
    metrics: dict[str, float]
    parameters: dict[str, Value]
    overrides: list[str]
    environment: dict[str, Value]
    data: dict[str, Value]
    wall_seconds: float | None
    process: ProcessRecord | None
    finished: bool
    log_tells_failure: bool
    has_checkpoint: bool

    def to_json(self) -> str:
        """Return the facts as one line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> RunFacts:
        """Return the facts of :meth:`to_json`.

        Raises:
            ValueError: if the text is something else.
            TypeError: likewise.
        """
        values = json.loads(text)
        record = values.pop("process")
        return RunFacts(**values, process=None if record is None else ProcessRecord(**record))


def find_runs(runs_dir: Path) -> Iterator[Path]:
    """Yield the run directories under a folder: those with a ``config.yaml``; symbolic links are not followed."""
    yield from _find(runs_dir, _DEPTH)


def _find(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, PermissionError):
        return
    if any(entry.name == _MARK for entry in entries):
        yield folder
    elif depth:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from _find(Path(entry.path), depth - 1)


def signature_of(run_dir: Path) -> Signature:
    """Return what changes whenever the facts do."""
    return tuple(_stamp(run_dir, name) for name in (*_READ, "checkpoints", "checkpoints/last.ckpt"))


def _stamp(run_dir: Path, name: str) -> tuple[str, int, int]:
    try:
        found = os.stat(f"{run_dir}/{name}")  # noqa: PTH116 - called some thousand times: a Path costs more
    except OSError:
        return (name, -1, -1)
    return (name, found.st_mtime_ns, found.st_size)


def read_run(run_dir: Path, runs_dir: Path) -> RunFacts:
    """Read everything that a run directory says; what is missing or torn is left out."""
    stamps = {name: changed for name, changed, _ in signature_of(run_dir)}
    config = _yaml(run_dir / "config.yaml")
    summary, environment = _json(run_dir / "summary.json"), _json(run_dir / "environment.json")
    run_id = run_dir.relative_to(runs_dir).as_posix()
    parameters = flattened(config)
    name, stage, seed = (parameters.get(key) for key in ("name", "stage", "seed"))
    described = summary.get("data")
    wall = summary.get("wall_seconds")
    return RunFacts(
        id=run_id,
        experiment=name if isinstance(name, str) else run_id.split("/")[0],
        stage=stage if isinstance(stage, str) else None,
        seed=seed if isinstance(seed, int) else None,
        started=_text(environment.get("started")),
        changed=max(stamps.values()) / 1e9,
        metrics=_metrics(run_dir, summary),
        parameters=parameters,
        overrides=_last_overrides(run_dir / "overrides.txt"),
        environment=flattened({key: value for key, value in environment.items() if key not in ("started", "argv")}),
        data=flattened(described) if isinstance(described, dict) else {},
        wall_seconds=float(wall) if isinstance(wall, int | float) else None,
        process=read_record(run_dir),
        finished=stamps["summary.json"] >= max(0, stamps["overrides.txt"]),
        log_tells_failure=_tells_failure(run_dir / "log.txt"),
        has_checkpoint=_has_checkpoint(run_dir / "checkpoints"),
    )


def flattened(values: Any, prefix: str = "") -> dict[str, Value]:  # noqa: ANN401 - what a YAML or JSON file holds
    """Return the leaves of nested mappings and lists by their dotted names.

    Example:
        >>> flattened({"model": {"widths": [8, 16]}, "data": {}})
        {'model.widths.0': 8, 'model.widths.1': 16, 'data': '{}'}
    """
    if isinstance(values, dict | list):
        items = list(values.items() if isinstance(values, dict) else enumerate(values))
        if items:
            return {
                name: leaf
                for key, value in items
                for name, leaf in flattened(value, f"{prefix}.{key}" if prefix else str(key)).items()
            }
        return {prefix: str(values)} if prefix else {}
    return {prefix: values if values is None or isinstance(values, str | int | float) else str(values)}


def _metrics(run_dir: Path, summary: dict[str, Any]) -> dict[str, float]:
    final = summary.get("metrics")
    logged = last_values(run_dir / METRICS)
    return logged | ({str(key): float(value) for key, value in final.items()} if isinstance(final, dict) else {})


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        from yaml import CSafeLoader as SafeLoader  # libyaml's: ten times as fast
    except ImportError:
        from yaml import SafeLoader  # a PyYAML without it
    try:
        with path.open(encoding="utf-8") as file:
            values = parse_yaml(file.read(), loader=SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _last_overrides(path: Path) -> list[str]:
    """Return what was typed at the last start: each start begins with a line of its time."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [line for line in text.rpartition("# ")[2].splitlines()[1:] if line]


def _tells_failure(path: Path) -> bool:
    """Whether the log ends with the record of an exception; a start after it is a record of its own."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LOG_END))
            end = file.read().decode(errors="replace")
    except OSError:
        return False
    return end.rfind("the run stopped") > max(end.rfind(" runs in "), end.rfind(" resumes in "))


def _has_checkpoint(folder: Path) -> bool:
    """Whether a complete one lies there: a file of torch's format, or a folder of a sharded one."""
    import zipfile

    try:
        found = [path for path in folder.iterdir() if path.name == "last.ckpt" or path.name.startswith("step-")]
    except OSError:
        return False
    return any(path.is_dir() or zipfile.is_zipfile(path) for path in found)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
