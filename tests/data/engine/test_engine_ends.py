"""How passes and workers end: errors, deaths, deadlines, garbage collection, exits, a killed main process."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_toys import PLAN, Direct, Moody, Toy, no_shared_files, plain

from neurotrain.data.engine import LoaderError, LoaderTimeoutError, WorkerDiedError, WorkerError
from neurotrain.data.loader import PlannedLoader
from neurotrain.data.plan import SampleKey

HERE = Path(__file__).parent
BAD = PLAN.key(epoch=0, position=13).index


def loader(source: Any, **settings: Any) -> PlannedLoader:
    return PlannedLoader(**{"dataset": source, "plan": PLAN, "batch_size": 4, "timeout": 30.0, **settings})


Children = Callable[[], list[BaseProcess]]


def pids_of(children: Children) -> list[int]:
    return [process.pid or 0 for process in children()]


def gone(pids: list[int], *, within: float) -> bool:
    """Whether processes that are not ours to wait for have ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() and "Z" not in state(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_comes_in_its_place_with_sample_and_traceback(workers: int, children: Children) -> None:
    told = loader(Moody(bad=[BAD]), num_workers=workers)
    first = next(position for position in range(24) if PLAN.key(epoch=0, position=position).index == BAD)
    iterator = iter(told)
    for _ in range(first // 4):
        next(iterator)
    with pytest.raises(ValueError, match=f"entry {BAD} is truncated") as caught:
        next(iterator)
    notes = "\n".join(caught.value.__notes__)
    assert f"position {first} (source 0, index {BAD})" in notes
    if workers:
        assert "in worker" in notes
        assert "engine_toys.py" in notes  # the worker's own traceback
    assert told.state_dict()["batch"] == first // 4
    with pytest.raises(LoaderError, match="this pass was ended by ValueError"):
        next(iterator)
    assert not children()


class UnpicklableError(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_an_exception_that_cannot_travel_is_told() -> None:
    class Raises(Toy):
        def load(self, key: SampleKey) -> dict[str, Any]:
            raise UnpicklableError(1, 2)

    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(UnpicklableError(1, 2)))
    with pytest.raises(WorkerError, match="UnpicklableError: 1 and 2"):
        next(iter(loader(Raises(), num_workers=1)))


def test_a_batch_that_cannot_travel_is_an_error() -> None:
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError), match=r"lambda|pickle"):
        next(iter(loader(Toy(), collate=lambda samples: lambda: samples, num_workers=1)))


def test_a_killed_worker_is_noticed_with_what_it_held(children: Children) -> None:
    # The other worker goes on; the first batches are good.
    told = loader(Moody(deadly=[BAD], slow=dict.fromkeys(range(10), 0.01)), num_workers=2)
    started = time.monotonic()
    with pytest.raises(WorkerDiedError, match=rf"(?s)killed by signal 9 \(SIGKILL.*held batch \d of.*index {BAD}\)"):
        list(told)
    assert time.monotonic() - started < 5
    assert not children()


def test_idle_workers_that_are_killed_are_noticed_too(children: Children) -> None:
    told = loader(Toy(), num_workers=2, persistent_workers=True)
    iterator = iter(told)
    next(iterator)
    time.sleep(0.5)  # what they were asked for is done
    idle = pids_of(children)
    for pid in idle:
        os.kill(pid, signal.SIGKILL)
    assert gone(idle, within=10)
    # Batches that were ready may still come; the last one had not been asked for.
    with pytest.raises(WorkerDiedError, match="while it held no batch"):
        list(iterator)
    assert not children()
    assert len(list(told)) == 6  # a new pass starts new workers


def test_a_worker_that_exits_is_noticed_with_its_code() -> None:
    class Exits(Toy):
        def load(self, key: SampleKey) -> dict[str, Any]:
            os._exit(7)

    with pytest.raises(WorkerDiedError, match="exited unexpectedly with code 7"):
        list(loader(Exits(), num_workers=1))


def test_the_deadline_names_who_holds_what(children: Children) -> None:
    told = loader(Moody(slow={BAD: 60.0}), num_workers=2, timeout=0.5)
    started = time.monotonic()
    with pytest.raises(
        LoaderTimeoutError, match=rf"timed out after 0\.5 seconds: batch \d.*worker \d is at.*index {BAD}"
    ):
        list(told)
    assert time.monotonic() - started < 5  # the worker that sleeps was killed
    assert not children()


def test_a_pass_that_is_dropped_ends_its_workers(children: Children) -> None:
    iterator = iter(loader(Toy(), num_workers=2))
    batch = next(iterator)
    pids = pids_of(children)
    assert len(pids) == 2
    del iterator
    gc.collect()
    assert not children()
    assert batch["image"].shape[0] == 4


def test_a_new_pass_over_kept_workers_ends_the_old_one(children: Children) -> None:
    told = loader(Direct(), num_workers=2, persistent_workers=True)
    old = iter(told)
    next(old)
    pids = pids_of(children)
    new = iter(told)
    first = next(new)
    with pytest.raises(LoaderError, match="another pass over it was begun"):
        next(old)
    del first, new
    told.close()
    assert gone(pids, within=2)


def test_workers_ignore_what_is_meant_for_the_main_process(children: Children) -> None:
    told = loader(Toy(), num_workers=1)
    iterator = iter(told)
    first = next(iterator)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pids_of(children)[0], number)
    rest = list(iterator)
    assert [plain(batch) for batch in [first, *rest]] == [plain(batch) for batch in loader(Toy())]


def test_nothing_is_left_in_the_folder_of_shared_memory() -> None:
    before = no_shared_files()
    iterator = iter(loader(Toy(), num_workers=2))
    next(iterator)
    assert no_shared_files() == before
    del iterator


def begin(end: str, told: Any) -> None:
    """A main process that holds two batches of its workers when it ends."""
    source = Moody(slow=dict.fromkeys(range(10), 0.05))
    iterator = iter(loader(source, num_workers=2, persistent_workers=True))
    held = [next(iterator), next(iterator)]
    told.send([process.pid for process in multiprocessing.active_children()])
    assert held
    if end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("end", "code"), [("killed", -signal.SIGKILL), ("left", 0)])
def test_workers_end_with_their_main_process(end: str, code: int) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=begin, args=(end, theirs))
    process.start()
    pids = ours.recv()
    process.join(10)
    assert process.exitcode == code
    assert len(pids) == 2
    assert gone(pids, within=3)


PROGRAM = """
from engine_toys import PLAN, Moody
from neurotrain.data.loader import PlannedLoader
import multiprocessing
source = Moody(slow=dict.fromkeys(range(10), 0.05))
loader = PlannedLoader(dataset=source, plan=PLAN, batch_size=4, num_workers=2, persistent_workers=True)
iterator = iter(loader)
held = [next(iterator), next(iterator)]
print(*[process.pid for process in multiprocessing.active_children()], flush=True)
raise ArithmeticError("the training failed")
"""


def test_an_interpreter_that_fails_ends_its_workers_and_says_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False, cwd=HERE
    )
    assert done.returncode == 1, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert gone(pids, within=3)
    assert done.stderr.strip().endswith("ArithmeticError: the training failed")


def test_a_fork_of_the_main_process_does_not_end_its_workers() -> None:
    told = loader(Toy(), num_workers=1)
    iterator = iter(told)
    first = next(iterator)
    child = os.fork()
    if not child:
        told.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(iterator)) == 5
    assert torch.equal(first["image"], next(iter(loader(Toy())))["image"])
