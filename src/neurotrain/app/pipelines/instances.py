"""Tasks with their variants filled in: commands, dependencies, and a fingerprint of all that decides their outcome."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neurotrain.app.jobs.names import nearest
from neurotrain.app.pipelines.definition import Pipeline, PipelineError, Scalar, Task
from neurotrain.app.pipelines.references import LookUp, filled, references


@dataclass(frozen=True)
class Instance:
    """One task that can be run.

    Attributes:
        name: ``train`` or ``train[seed=0]``.
        folder: of its log, its records and, as ``${task.dir}``, of what it makes.
        command: program and arguments.
        needs: names of instances that must have finished.
        outputs: paths that it makes, by name.
        environment: variables beside the inherited ones.
        cwd: where it runs.
        task: limits and retries.
        fingerprint: of everything that decides its outcome, dependencies included.
    """

    name: str
    folder: Path
    command: tuple[str, ...]
    needs: tuple[str, ...]
    outputs: Mapping[str, str]
    environment: Mapping[str, str]
    cwd: Path
    task: Task
    fingerprint: str


@dataclass(frozen=True)
class _Slot:
    """A task and one combination of its variants."""

    task_name: str
    task: Task
    variant: Mapping[str, Scalar]
    folder: Path

    @property
    def name(self) -> str:
        return self.task_name + (f"[{','.join(_pairs(self.variant))}]" if self.variant else "")

    @property
    def own_folder(self) -> Path:
        return self.folder / "tasks" / _file_name(self.name)


def instances(pipeline: Pipeline, *, folder: Path, cwd: Path) -> list[Instance]:
    """Fill in variants, references and dependencies.

    Args:
        pipeline: as read.
        folder: of the pipeline's state.
        cwd: where the pipeline was started.

    Returns:
        All tasks, each after those that it needs.

    Raises:
        PipelineError: if tasks depend on each other, or a reference names nothing.
    """
    slots = {name: _slots(name, task, folder) for name, task in pipeline.tasks.items()}
    made: dict[str, Instance] = {}
    for name in _ordered(pipeline):
        for slot in slots[name]:
            instance = _instance(slot, slots, made, cwd)
            made[instance.name] = instance
    return list(made.values())


def _slots(name: str, task: Task, folder: Path) -> list[_Slot]:
    combined = itertools.product(*task.variants.values())
    return [_Slot(name, task, dict(zip(task.variants, values, strict=True)), folder) for values in combined]


def _ordered(pipeline: Pipeline) -> list[str]:
    """Sort the tasks by need, otherwise as they were written."""
    needs = {name: _needed(name, task, pipeline) for name, task in pipeline.tasks.items()}
    ordered: list[str] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name in path:
            raise PipelineError(f"tasks need each other: {' -> '.join([*path[path.index(name) :], name])}")
        path.append(name)
        for needed in needs[name]:
            visit(needed)
        path.pop()
        ordered.append(name)

    for name in needs:
        visit(name)
    return ordered


def _needed(name: str, task: Task, pipeline: Pipeline) -> list[str]:
    """Return the tasks that one needs, those that it refers to included."""
    needed = list(task.needs)
    for text in (*task.command, *task.environment.values(), task.cwd):
        for parts in references(text):
            if parts[0] != "tasks":
                continue
            if len(parts) != 3:
                raise PipelineError(f"tasks.{name}: ${{{'.'.join(parts)}}}: expected ${{tasks.NAME.OUTPUT}}")
            if parts[1] not in pipeline.tasks:
                known = nearest(parts[1], pipeline.tasks)
                raise PipelineError(f"tasks.{name}: ${{{'.'.join(parts)}}}: no task {parts[1]!r}{known}")
            outputs = pipeline.tasks[parts[1]].outputs
            if parts[2] not in {*outputs, "dir"}:
                known = nearest(parts[2], [*outputs, "dir"])
                raise PipelineError(f"tasks.{name}: ${{{'.'.join(parts)}}}: no output {parts[2]!r}{known}")
            needed.append(parts[1])
    return list(dict.fromkeys(needed))


def _instance(slot: _Slot, slots: Mapping[str, list[_Slot]], made: Mapping[str, Instance], cwd: Path) -> Instance:
    needs: dict[str, None] = {}

    def look_up(parts: tuple[str, ...]) -> list[str]:
        if parts[0] != "tasks":
            return [_own(parts, slot)]
        found = _matching(slot, slots[parts[1]])
        return [str(made[one].folder if parts[2] == "dir" else made[one].outputs[parts[2]]) for one in found]

    for needed in slot.task.needs:
        needs.update(dict.fromkeys(_matching(slot, slots[needed])))
    for text in (*slot.task.command, *slot.task.environment.values(), slot.task.cwd):
        for parts in references(text):
            if parts[0] == "tasks":
                needs.update(dict.fromkeys(_matching(slot, slots[parts[1]])))
    where = f"tasks.{slot.task_name}"
    place = cwd / _single(f"{where}.cwd", slot.task.cwd, look_up)
    outputs = {key: str(place / _single(f"{where}.outputs.{key}", text, look_up)) for key, text in _outputs(slot)}
    environment = {
        key: _single(f"{where}.environment.{key}", text, look_up) for key, text in slot.task.environment.items()
    }
    command = tuple(value for text in slot.task.command for value in filled(text, look_up))
    decisive = [command, str(place), environment, outputs, [(name, made[name].fingerprint) for name in needs]]
    fingerprint = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    return Instance(
        slot.name, slot.own_folder, command, tuple(needs), outputs, environment, place, slot.task, fingerprint
    )


def _outputs(slot: _Slot) -> list[tuple[str, str]]:
    for key, text in slot.task.outputs.items():
        if key == "dir":
            raise PipelineError(f"tasks.{slot.task_name}.outputs.dir: the name of the task's own folder")
        if any(parts[0] == "tasks" for parts in references(text)):
            raise PipelineError(f"tasks.{slot.task_name}.outputs.{key}: refers to another task")
    return list(slot.task.outputs.items())


def _single(where: str, text: str, look_up: LookUp) -> str:
    values = filled(text, look_up)
    if len(values) != 1:
        raise PipelineError(f"{where}: {text!r} has {len(values)} values, expected one")
    return values[0]


def _own(parts: tuple[str, ...], slot: _Slot) -> str:
    known: dict[tuple[str, ...], str] = {
        ("python",): sys.executable,
        ("task", "dir"): str(slot.own_folder),
        ("pipeline", "dir"): str(slot.folder),
        **{("variant", key): _text(value) for key, value in slot.variant.items()},
    }
    if parts not in known:
        hint = nearest(".".join(parts), [".".join(name) for name in known])
        raise PipelineError(f"tasks.{slot.task_name}: ${{{'.'.join(parts)}}} names nothing{hint}")
    return known[parts]


def _matching(slot: _Slot, others: Sequence[_Slot]) -> list[str]:
    """Return the instances of a task that agree with the values of the variants which both have."""
    return [
        other.name
        for other in others
        if all(repr(slot.variant[key]) == repr(value) for key, value in other.variant.items() if key in slot.variant)
    ]


def _pairs(variant: Mapping[str, Scalar]) -> list[str]:
    return [f"{key}={_text(value)}" for key, value in sorted(variant.items())]


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _file_name(name: str) -> str:
    """Return a name that file systems and Hydra's grammar take; one that had to be changed ends with its hash."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:100].strip("-")
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
