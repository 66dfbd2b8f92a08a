"""Jobs under supervision: how they end, what is left of them, and who holds a device."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ledgers import until

from neurotrain.app.jobs.leases import DriverLock, LeaseError, Leases, visible_devices
from neurotrain.app.jobs.process import Command, Ending, Job, attempts, seconds_spent, settle
from neurotrain.app.jobs.supervisor import TOKEN, processes_of

PYTHON = (sys.executable, "-I", "-S", "-c")
SLEEPER = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


def _ended(job: Job) -> Ending:
    found: list[Ending] = []
    until(lambda: found or [found.append(ending) for ending in [job.poll()] if ending is not None])
    return found[0]


def _command(folder: Path, code: str, *, seconds: float | None = None, grace: float = 0.2, **variables: str) -> Command:
    return Command((*PYTHON, code), folder, folder.parent, environment=variables, seconds=seconds, grace=grace)


def _token(folder: Path) -> str:
    return json.loads((folder / "attempt.json").read_text())["token"]


def test_a_job_leaves_its_output_and_how_it_ended(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    job = Job.start(_command(folder, "import os, sys; print(os.environ['WORD']); sys.exit(3)", WORD="hello"))
    ending = _ended(job)
    assert (ending.returncode, ending.reason, ending.ok, str(ending)) == (3, "exited", False, "exit code 3")
    assert (folder / "log.txt").read_text() == "hello\n"
    assert settle(folder) == ending
    again = _ended(Job.start(_command(folder, "pass")))
    assert again.ok
    assert attempts(folder) == 2
    assert ending.seconds is not None
    assert again.seconds is not None
    assert seconds_spent(folder) == pytest.approx(ending.seconds + again.seconds)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    job = Job.start(Command(("no-such-program-here",), tmp_path / "job", tmp_path))
    ending = _ended(job)
    assert ending.returncode == 127
    assert "no-such-program-here" in str(ending)


def test_the_time_limit_kills_the_deaf_and_their_children_in_other_sessions(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    child = f"import subprocess; subprocess.Popen({[*PYTHON, SLEEPER]!r}, start_new_session=True); {STUBBORN}"
    ending = _ended(Job.start(_command(folder, child, seconds=1.0)))
    assert (ending.reason, ending.returncode) == ("timeout", -signal.SIGKILL)
    assert processes_of(_token(folder)) == []


def test_what_a_job_leaves_running_ends_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    child = f"import subprocess; subprocess.Popen({[*PYTHON, SLEEPER]!r}, start_new_session=True)"
    assert _ended(Job.start(_command(folder, child))).ok
    assert processes_of(_token(folder)) == []


def test_a_job_can_be_asked_to_end(tmp_path: Path) -> None:
    code = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(1, flush=True); {SLEEPER}"
    job = Job.start(_command(tmp_path / "job", code, grace=30.0))
    until(lambda: (tmp_path / "job" / "log.txt").is_file() and (tmp_path / "job" / "log.txt").read_text())
    job.stop("pruned")
    job.stop("stopped")
    ending = _ended(job)
    assert (ending.returncode, ending.reason) == (7, "pruned")


def test_a_job_inherits_no_ignored_signal(tmp_path: Path) -> None:
    code = "import signal; print([signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)])"
    assert _ended(Job.start(_command(tmp_path / "job", code))).ok
    told = (tmp_path / "job" / "log.txt").read_text()
    assert told.count("SIG_DFL") == 2
    assert "default_int_handler" in told


def _start_and_die(folder: Path, code: str, device: Path | None = None) -> None:
    """Start a job in a driver that is killed as soon as the command has spoken."""
    driver = multiprocessing.get_context("fork").Process(target=_die, args=(folder, code, device))
    driver.start()
    driver.join(timeout=60)
    assert driver.exitcode == -signal.SIGKILL


def _die(folder: Path, code: str, device: Path | None) -> None:
    lease = None if device is None else _leases(device, "0").take(1)
    Job.start(_command(folder, code), keep=() if lease is None else lease.descriptors)
    until(lambda: (folder / "log.txt").is_file() and (folder / "log.txt").read_text())
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_job_ends_when_its_driver_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    _start_and_die(folder, f"print(1, flush=True); {SLEEPER}")
    ending = settle(folder, grace=30.0)
    assert ending is not None
    assert (ending.returncode, ending.ok) == (-signal.SIGTERM, False)
    until(lambda: not processes_of(_token(folder)))


def test_a_job_whose_driver_was_killed_is_asked_to_end_once(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))\n"
        "print('ready', flush=True); time.sleep(0.6); time.sleep(0.01)"
    )
    _start_and_die(folder, code)
    settle(folder, grace=30.0)
    assert (folder / "log.txt").read_text() == "ready\nasked\n"


def test_a_job_that_lost_driver_and_supervisor_is_ended_and_known_as_lost(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    job = Job.start(_command(folder, STUBBORN))
    until(lambda: (folder / "log.txt").is_file() and (folder / "log.txt").read_text())
    token = _token(folder)
    job._process.kill()
    ending = _ended(job)
    assert (ending.reason, ending.returncode) == ("lost", None)
    assert processes_of(token) == []


def test_a_job_that_was_never_started_has_no_ending(tmp_path: Path) -> None:
    assert settle(tmp_path / "job") is None
    assert attempts(tmp_path / "job") == 0


def test_only_processes_with_the_token_are_found() -> None:
    child = subprocess.Popen([*PYTHON, SLEEPER], env={**os.environ, TOKEN: "abc"})
    try:
        until(lambda: processes_of("abc") == [child.pid])
        assert processes_of("ab") == []
    finally:
        child.kill()
        child.wait()


def _leases(tmp_path: Path, *devices: str, places: int = 1) -> Leases:
    return Leases(folder=tmp_path, devices=devices, places=places, places_folder=tmp_path / "places")


def test_a_device_has_one_holder(tmp_path: Path) -> None:
    ours, theirs = _leases(tmp_path, "0", "1"), _leases(tmp_path, "0", "1")
    first, second = ours.take(1), theirs.take(1)
    assert first is not None
    assert second is not None
    assert (first.environment, second.devices) == ({"CUDA_VISIBLE_DEVICES": "0"}, ("1",))
    assert theirs.take(1) is None
    first.release()
    assert ours.take(2) is None  # all or none
    third = theirs.take(1)
    assert third is not None
    assert third.devices == ("0",)
    for lease in (second, third):
        lease.release()
    with pytest.raises(LeaseError, match=r"3 devices are needed at once, and there are 2 \(0, 1\)"):
        ours.take(3)


def test_places_on_the_cpu_are_counted(tmp_path: Path) -> None:
    leases = _leases(tmp_path, places=2)
    taken = [leases.take(0), leases.take(0)]
    assert leases.take(0) is None
    for lease in taken:
        assert lease is not None
        assert lease.environment == {}
        lease.release()


def test_a_lease_outlives_its_driver_with_the_job_and_no_longer(tmp_path: Path) -> None:
    code = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); {SLEEPER}"
    folder = tmp_path / "job"
    _start_and_die(folder, code.replace("signal.SIG_IGN", "lambda *_: print('asked', flush=True)"), tmp_path)
    leases = _leases(tmp_path, "0")
    held = processes_of(_token(folder))
    lease = leases.take(1)
    assert lease is None or not held  # whoever is quick enough to end has given it back
    settle(folder, grace=0.2)
    lease = lease or leases.take(1)
    assert lease is not None
    lease.release()


def test_two_drivers_do_not_share_a_folder(tmp_path: Path) -> None:
    first = DriverLock(tmp_path)
    with pytest.raises(LeaseError, match=f"worked on by process {os.getpid()}"):
        DriverLock(tmp_path)
    first.release()
    DriverLock(tmp_path).release()


def test_devices_are_those_that_are_shown() -> None:
    assert visible_devices({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_devices({"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b"}) == ("GPU-a", "GPU-b")
