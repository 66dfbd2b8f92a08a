"""A sweep of tiny tasks, in a process that can be killed."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from neurotrain.app.jobs.leases import DriverLock, Leases
from neurotrain.app.sweeps.driver import Driver
from neurotrain.app.sweeps.grid import Grid
from neurotrain.app.sweeps.local import LocalLauncher
from neurotrain.app.sweeps.trials import Plan, SweepFolder

TASK = """
import json, os, sys, time
number, run_dir, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]

def note(word):
    with open(f"{folder}/ledger.txt", "a") as file:
        file.write(f"{word} {number}\\n")

note("resumed" if os.path.isdir(run_dir) else "started")
os.makedirs(run_dir, exist_ok=True)
while number in (5, 6) and not os.path.exists(f"{folder}/go"):
    time.sleep(0.01)
with open(f"{run_dir}/metrics.csv", "w") as file:
    file.write(f"step,val/score\\n1,{number / 2}\\n2,{number}\\n")
with open(f"{run_dir}/summary.json", "w") as file:
    json.dump({"metrics": {"val/score": float(number)}}, file)
note("ended")
"""


def sweep(folder: Path, *, trials: int, jobs: int, grace: float = 5.0) -> int:
    """Run the sweep, or go on with it, and return its exit code."""
    place = SweepFolder(folder / "sweep")
    plans = [Plan(n, (f"x={n}",), (str(n),), str(folder / "runs" / str(n))) for n in range(trials)]
    leases = Leases(folder=folder, devices=(), places=jobs, places_folder=folder / "places")
    launcher = LocalLauncher(
        folder=place,
        command=lambda plan, begun: (
            sys.executable,
            "-I",
            "-S",
            "-c",
            TASK,
            *plan.arguments,
            plan.run_dir,
            str(folder),
        ),
        leases=leases,
        cwd=folder,
        grace=grace,
    )
    lock = DriverLock(place.path)
    try:
        for plan in plans:
            place.keep(plan)
        source = Grid(plans, objective="val/score")
        with (folder / "told.txt").open("a", buffering=1) as told:
            tell: Callable[[str], None] = lambda line: print(line, file=told)  # noqa: E731
            return Driver(folder=place, source=source, launcher=launcher, tell=tell, pause=0.01).run().exit_code
    finally:
        lock.release()


def start(folder: Path, *, trials: int, jobs: int) -> BaseProcess:
    """Start the sweep in a process forked from this one."""
    process = multiprocessing.get_context("fork").Process(target=_main, args=(folder, trials, jobs))
    process.start()
    return process


def _main(folder: Path, trials: int, jobs: int) -> None:
    try:
        code = sweep(folder, trials=trials, jobs=jobs)
    except ValueError as error:
        (folder / "refused.txt").write_text(str(error))
        code = 2
    os._exit(code)
