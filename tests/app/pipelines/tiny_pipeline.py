"""A pipeline of tiny tasks, in a process that can be killed."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from neurotrain.app.pipelines.command import run_pipeline
from neurotrain.app.pipelines.shown import Shown

TASK = """
import os, sys, time
folder, name, made, reads = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]

def note(word):
    with open(f"{folder}/ledger.txt", "a") as file:
        file.write(f"{word} {name}\\n")

note("started")
while name.startswith("train") and not os.path.exists(f"{folder}/go"):
    time.sleep(0.01)
assert all(os.path.exists(path) for path in reads), reads
with open(made, "w") as file:
    file.write(name)
note("ended")
"""


def task(folder: Path, name: str, *reads: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any key of a task
    """A task that writes into the ledger when it begins and ends."""
    command = ["${python}", "-I", "-S", "-c", TASK.replace("${", "$${"), str(folder), name, "${task.dir}/made", *reads]
    return {"command": command, "outputs": {"made": "${task.dir}/made"}, **more}


def six(folder: Path) -> dict[str, Any]:
    """Two tasks, then two variants that wait for ``go``, then one for each of them."""
    seeds = {"variants": {"seed": [0, 1]}}
    return {
        "name": "tiny",
        "parallel": 2,
        "tasks": {
            "prepare": task(folder, "prepare"),
            "train": task(folder, "train${variant.seed}", "${tasks.prepare.made}", **seeds),
            "test": task(folder, "test${variant.seed}", "${tasks.train.made}", **seeds),
            "report": task(folder, "report", "${tasks.test.made}"),
        },
    }


def run(folder: Path, content: dict[str, Any]) -> tuple[int, str]:
    """Run a pipeline in this process; returns its exit code and what it showed."""
    file = folder / "pipeline.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with (folder / "told.txt").open("w+") as told:
        code = run_pipeline(file, folder=folder / "state", shown=Shown(Console(file=told, width=200)))
        told.seek(0)
        return code, told.read()


def start(folder: Path, content: dict[str, Any]) -> BaseProcess:
    """Run a pipeline in a process forked from this one."""
    process = multiprocessing.get_context("fork").Process(target=_main, args=(folder, content))
    process.start()
    return process


def _main(folder: Path, content: dict[str, Any]) -> None:
    os._exit(run(folder, content)[0])
