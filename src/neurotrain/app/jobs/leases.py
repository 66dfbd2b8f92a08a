"""Leases of devices on one machine: locked files, free again as soon as the last process that holds one is dead."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path


class LeaseError(ValueError):
    """More devices are asked for than there are."""


@dataclass
class Lease:
    """Devices that are ours until every process that inherited the descriptors is dead.

    Attributes:
        devices: names, as ``CUDA_VISIBLE_DEVICES`` takes them; empty for a place on the CPU.
        descriptors: of the locked files, for a job to inherit.
    """

    devices: tuple[str, ...]
    descriptors: tuple[int, ...]

    @property
    def environment(self) -> dict[str, str]:
        """Variables that show a job its devices, and no others."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.devices)} if self.devices else {}

    def release(self) -> None:
        """Give the devices back; jobs that inherited them keep them until they end."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = ()


class Leases:
    """Hands out devices, each to one holder on the machine, and places on the CPU of one driver.

    Args:
        folder: of the devices' lock files, shared by all drivers of this user on this machine.
        devices: that may be leased.
        places: of jobs on the CPU at once.
        places_folder: of the places' lock files, of this driver alone.
    """

    def __init__(self, *, folder: Path, devices: Sequence[str], places: int, places_folder: Path) -> None:
        self.folder = folder
        self.devices = tuple(devices)
        self.places = places
        self.places_folder = places_folder

    def take(self, count: int) -> Lease | None:
        """Take devices, or a place on the CPU where ``count`` is 0.

        Args:
            count: of devices.

        Returns:
            The lease; None where not enough are free now.

        Raises:
            LeaseError: if there are fewer devices than that.
        """
        if count > len(self.devices):
            known = ", ".join(self.devices) or "none"
            raise LeaseError(f"{count} devices are needed at once, and there are {len(self.devices)} ({known})")
        names = self.devices if count else tuple(f"place-{index}" for index in range(self.places))
        folder = self.folder if count else self.places_folder
        folder.mkdir(parents=True, exist_ok=True)
        taken: list[str] = []
        descriptors: list[int] = []
        for name in names:
            descriptor = _locked(folder / f"{name}.lock")
            if descriptor is not None:
                taken.append(name)
                descriptors.append(descriptor)
            if len(taken) == max(count, 1):
                return Lease(tuple(taken) if count else (), tuple(descriptors))
        for descriptor in descriptors:  # all or none: two drivers that hold half each would wait for ever
            os.close(descriptor)
        return None


def machine_folder() -> Path:
    """Return the folder of this user's leases on this machine, made where absent and closed to others.

    Raises:
        LeaseError: if somebody else owns it.
    """
    folder = Path(tempfile.gettempdir()) / f"neurotrain-leases-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise LeaseError(f"{folder} is not a folder of this user")
    return folder


def visible_devices(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, by UUID where the driver's tool tells them.

    Args:
        environment: of this process.

    Returns:
        Names for ``CUDA_VISIBLE_DEVICES``; empty where there is no GPU.
    """
    by_index = _uuids()
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return tuple(by_index.values())
    names = [name.strip() for name in shown.split(",") if name.strip() not in ("", "-1")]
    return tuple(by_index.get(name, name) for name in names)


@cache
def _uuids() -> dict[str, str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    asked = [tool, "--query-gpu=index,uuid", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    if done.returncode != 0:
        return {}
    pairs = (line.partition(",") for line in done.stdout.splitlines())
    return {index.strip(): uuid.strip() for index, _, uuid in pairs}


def _locked(path: Path) -> int | None:
    """Open and lock a file; None where another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


class DriverLock:
    """Lets one driver at a time work in a folder; free as soon as its process is dead.

    Args:
        folder: of the sweep or pipeline.

    Raises:
        LeaseError: if another driver works there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "driver.lock"
        descriptor = _locked(path)
        if descriptor is None:
            holder = path.read_text(encoding="utf-8").strip()
            raise LeaseError(f"{folder} is being worked on by process {holder}")
        self._descriptor: int | None = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let another driver work there."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
