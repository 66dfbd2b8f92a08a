"""What a process uses: processor and memory where psutil is installed, graphics memory where ``nvidia-smi`` is."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec

_WAIT = 5.0  # seconds for nvidia-smi


def usage(pid: int) -> dict[str, str]:
    """Return what a process and its children use, and what the machine has, as texts by name."""
    return _host(pid) | _graphics(pid)


def _host(pid: int) -> dict[str, str]:
    if find_spec("psutil") is None:
        return {}
    import psutil

    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        for process in family:
            process.cpu_percent()
        whole = psutil.cpu_percent(interval=0.1)
        load = sum(process.cpu_percent() for process in family)
        resident = sum(process.memory_info().rss for process in family)
    except psutil.Error:
        return {}  # it ended while we looked
    memory = psutil.virtual_memory()
    return {
        "CPU": f"{load:.0f}% in {len(family)} processes, machine {whole:.0f}% of {psutil.cpu_count()} cores",
        "RAM": f"{resident / 2**30:.1f} GiB, machine {memory.used / 2**30:.1f} of {memory.total / 2**30:.1f} GiB",
    }


def _graphics(pid: int) -> dict[str, str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = [program, "--query-gpu=index,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=_WAIT).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return {}
    cells = [[cell.strip() for cell in line.split(",")] for line in told.splitlines()]
    return {f"GPU {row[0]}": f"{row[1]}%, {row[2]} of {row[3]} MiB" for row in cells if len(row) == 4}
