"""One run directory under any launcher: the first process names it, the others are told."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from torch.distributed import DistStoreError, Store, TCPStore

from neurotrain.app.run_directory import RunDirectory

RUN_DIR_VARIABLE = "NEUROTRAIN_RUN_DIR"
"""Tells the processes that Lightning's own launcher starts where the first one put the run."""

_WAIT = timedelta(minutes=5)
_stores: dict[tuple[str, int], Store] = {}
_agreed = 0


class FirstRankError(ValueError):
    """The first process of a run could not begin it, or was not found."""


def launcher() -> ClusterEnvironment:
    """Who started this process, in the order in which Lightning looks: torchrun, SLURM, LSF, MPI, Lightning itself."""
    for kind in (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment):
        if kind.detect():
            return kind()
    return LightningEnvironment()


def is_first_rank() -> bool:
    """Whether this is the first process of a run, as far as its environment says before there is a Trainer."""
    found = launcher()
    if isinstance(found, LightningEnvironment):
        return found.node_rank() == 0 and found.local_rank() == 0
    return found.global_rank() == 0


def agreed(begin: Callable[[], RunDirectory], *, num_nodes: int = 1) -> RunDirectory:
    """Let the first process of a run begin it, and the others have what it decided.

    They meet at ``MASTER_ADDR`` and ``MASTER_PORT``, as they will once more when training begins. Processes on several
    machines need a file system that they share.

    Args:
        begin: finds and makes the run directory; called on the first process, or where there is no other.
        num_nodes: machines of the run.

    Returns:
        The same directory and checkpoint on all processes.

    Raises:
        FirstRankError: on the others, if ``begin`` failed on the first, or it does not answer.
    """
    found = launcher()
    if RUN_DIR_VARIABLE in os.environ or not _has_others(found, num_nodes):
        return begin()
    global _agreed
    _agreed += 1
    key = f"neurotrain/run/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{_agreed}"
    first = is_first_rank()
    store = _store(found, first=first)
    return _begun(store, key, begin) if first else _told(store, key)


def _has_others(found: ClusterEnvironment, num_nodes: int) -> bool:
    if isinstance(found, LightningEnvironment):
        return num_nodes > 1 or found.creates_processes_externally
    return found.world_size() > 1


def _begun(store: Store, key: str, begin: Callable[[], RunDirectory]) -> RunDirectory:
    try:
        directory = begin()
    except Exception as error:  # the others must not wait for one that has ended
        store.set(key, json.dumps({"error": f"{type(error).__name__}: {error}"}))
        raise
    checkpoint = None if directory.checkpoint is None else str(directory.checkpoint)
    store.set(key, json.dumps({"path": str(directory.path), "checkpoint": checkpoint}))
    return directory


def _told(store: Store, key: str) -> RunDirectory:
    try:
        store.wait([key], _WAIT)
    except DistStoreError as error:
        raise FirstRankError(f"the first process named no run directory within {_WAIT}") from error
    told = json.loads(store.get(key))
    if "error" in told:
        raise FirstRankError(f"the first process could not begin the run: {told['error']}")
    return RunDirectory(Path(told["path"]), None if told["checkpoint"] is None else Path(told["checkpoint"]))


def _store(found: ClusterEnvironment, *, first: bool) -> Store:
    """Where the processes meet; the same server that the process group will use, so that no other port is needed."""
    place = (found.main_address, found.main_port)
    if place not in _stores:
        # torchrun's agent may serve already; otherwise the first process does, for as long as it lives.
        serves = first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
        try:
            _stores[place] = TCPStore(
                *place, world_size=None, is_master=serves, timeout=_WAIT, wait_for_workers=False, multi_tenant=True
            )
        except DistStoreError as error:
            raise FirstRankError(f"no meeting of the processes at {place[0]}:{place[1]}: {error}") from error
    return _stores[place]
