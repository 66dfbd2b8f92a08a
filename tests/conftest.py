"""Fixtures that every test may use."""

from __future__ import annotations

import os

# Before torch is imported: test processes share the cores, and threads that wait for each other would spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-kills", action="store_true", help="every seeded SIGKILL, not only some of them")
    parser.addoption("--attacks", action="store_true", help="a table of the hostile suite's attacks and results")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: whole runs wait for their processes, servers and disks a third of their time."""
    return len(os.sched_getaffinity(0)) + 1


_LONG = ("e2e", "chaos", "strategies", "golden", "app")
"""Folders of whole runs. They begin first, or one process would be left alone with them at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long tests first, and leave out those that only ``--all-kills`` asks for."""
    places = {Path(__file__).parent / folder: place for place, folder in enumerate(_LONG)}
    items.sort(key=lambda item: min((places.get(above, len(_LONG)) for above in item.path.parents), default=0))
    if config.getoption("--all-kills"):
        return
    rare = [item for item in items if item.get_closest_marker("all_kills") is not None]
    config.hook.pytest_deselected(items=rare)
    items[:] = [item for item in items if item.get_closest_marker("all_kills") is None]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real datasets: ``$NEUROTRAIN_DATA``, or ``shared/data`` beside the checkout; skips where absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NEUROTRAIN_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"real data not found: set NEUROTRAIN_DATA or provide {folder}")
    return folder


@pytest.fixture
def children() -> Callable[[], list[BaseProcess]]:
    """Living processes that were started since the test began; servers of other tests may live on in this one."""
    before = set(multiprocessing.active_children())
    return lambda: [process for process in multiprocessing.active_children() if process not in before]
