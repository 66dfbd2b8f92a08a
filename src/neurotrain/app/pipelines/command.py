"""``neurotrain pipeline run FILE.yaml``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from neurotrain.app.jobs.leases import DriverLock, LeaseError, Leases, machine_folder, visible_devices
from neurotrain.app.jobs.process import LeftoverError
from neurotrain.app.pipelines.definition import PipelineError, read_pipeline
from neurotrain.app.pipelines.driver import PipelineDriver
from neurotrain.app.pipelines.instances import instances
from neurotrain.app.pipelines.shown import Shown


def add_pipeline_commands(commands: Any) -> None:  # noqa: ANN401 - argparse does not name its type in public
    """Add ``pipeline run`` to the subparsers of a command line."""
    pipeline = commands.add_parser("pipeline", help="tasks with dependencies, from a YAML file")
    run = pipeline.add_subparsers(required=True, metavar="command").add_parser(
        "run", help="run what has not finished, or has changed since; exit code 0 where every task is finished"
    )
    run.add_argument("file", type=Path, help="tasks by name: command, needs, variants, outputs, retries, seconds")
    run.add_argument("--dir", type=Path, help="of state and logs; runs/pipelines/NAME where not given")
    run.add_argument("--parallel", type=int, help="tasks at once; the file's where not given")
    run.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    try:
        return run_pipeline(parsed.file, folder=parsed.dir, parallel=parsed.parallel)
    except (PipelineError, LeaseError, LeftoverError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def run_pipeline(
    file: Path, *, folder: Path | None = None, parallel: int | None = None, shown: Shown | None = None
) -> int:
    """Run a pipeline, or go on with it.

    Args:
        file: of the pipeline.
        folder: of state and logs; None for ``runs/pipelines/<name>``.
        parallel: tasks at once; None for the file's.
        shown: shows the tasks.

    Returns:
        0 where every task is finished, 1 where one failed, 128 plus the signal that ended it.

    Raises:
        PipelineError: if the file is wrong; nothing has run then.
        LeaseError: if the pipeline runs already, or a task needs more devices than there are.
    """
    pipeline = read_pipeline(file)
    if parallel is not None and parallel < 1:
        raise PipelineError(f"--parallel {parallel}: expected 1 or more")
    place = (folder or Path("runs") / "pipelines" / pipeline.name).absolute()
    tasks = instances(pipeline, folder=place, cwd=Path.cwd())
    devices = visible_devices(os.environ) if any(task.task.devices for task in tasks) else ()
    most = max(tasks, key=lambda task: task.task.devices)
    if most.task.devices > len(devices):
        raise LeaseError(f"task {most.name} needs {most.task.devices} devices, and there are {len(devices)}")
    lock = DriverLock(place)
    shown = shown or Shown()
    try:
        driver = PipelineDriver(
            tasks,
            parallel=parallel or pipeline.parallel,
            leases=Leases(folder=machine_folder(), devices=devices, places=0, places_folder=place),
            show=shown.update,
        )
        with shown.showing(driver):
            return driver.run()
    finally:
        lock.release()
