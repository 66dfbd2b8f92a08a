"""What a pipeline's file says, read strictly: names, commands as lists of arguments, dependencies, limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from neurotrain.app.jobs.names import nearest
from neurotrain.app.jobs.strict_files import Strict, read_mapping, validated

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")]
Scalar = bool | int | float | str


class PipelineError(ValueError):
    """A pipeline is refused."""


class Task(Strict):
    """One task, or one for each combination of its variants.

    Attributes:
        command: program and arguments; no shell. May refer to ``${variant.KEY}``, ``${task.dir}``, ``${pipeline.dir}``,
            ``${python}`` and outputs of other tasks, ``${tasks.NAME.OUTPUT}``; ``$${`` is a literal ``${``.
        needs: names of tasks that must have finished; those whose outputs are referred to need not be listed.
        variants: values by key: one task for each combination of them.
        outputs: paths that the task makes, by name; a task that did not make them has failed.
        environment: variables beside the inherited ones.
        cwd: where to run, relative to where the pipeline was started.
        devices: GPUs that the task needs.
        retries: further attempts after one that failed.
        seconds: limit of time for an attempt.
        grace: seconds between SIGTERM and SIGKILL.
    """

    command: Annotated[list[str], Field(min_length=1)]
    needs: list[Name] = Field(default_factory=list[str])
    variants: dict[Name, Annotated[list[Scalar], Field(min_length=1)]] = Field(default_factory=dict[str, list[Scalar]])
    outputs: dict[Name, str] = Field(default_factory=dict[str, str])
    environment: dict[str, str] = Field(default_factory=dict[str, str])
    cwd: str = "."
    devices: Annotated[int, Field(ge=0)] = 0
    retries: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(gt=0)] | None = None
    grace: Annotated[float, Field(ge=0)] = 30.0


class Pipeline(Strict):
    """A pipeline.

    Attributes:
        name: of its folder.
        tasks: by name.
        parallel: tasks at once.
    """

    name: Name
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]
    parallel: Annotated[int, Field(ge=1)] = 1


def read_pipeline(path: Path) -> Pipeline:
    """Read a pipeline's file.

    Args:
        path: of a YAML file.

    Returns:
        The pipeline; its dependencies exist.

    Raises:
        PipelineError: with one line for each mistake.
    """
    pipeline = validated(Pipeline, read_mapping(path, PipelineError), where=path.name, error=PipelineError)
    unknown = [
        f"{path.name}: tasks.{name}.needs: no task {needed!r}{nearest(needed, pipeline.tasks)}"
        for name, task in pipeline.tasks.items()
        for needed in task.needs
        if needed not in pipeline.tasks
    ]
    repeated = [
        f"{path.name}: tasks.{name}.variants.{key}: {values} repeat a value"
        for name, task in pipeline.tasks.items()
        for key, values in task.variants.items()
        if len({repr(value) for value in values}) < len(values)
    ]
    if unknown or repeated:
        raise PipelineError("\n".join([*unknown, *repeated]))
    return pipeline
