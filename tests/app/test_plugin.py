"""A third party's package, installed as its installer would, found by its entry points and trained with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from neurotrain.callbacks import read_metrics

PLUGIN = Path(__file__).parents[1] / "plugin"

TRAINS = """
import json, sys
import neurotrain
from neurotrain.app.data_commands import load_data

run = neurotrain.train(neurotrain.compose("stripes", [f"paths.run_dir={sys.argv[1]}"]))
pictures = load_data("stripes_wide", [])
pictures.setup("fit")
batch = next(iter(pictures.train_dataloader()))
try:
    neurotrain.compose("stripes", ["data.weights.powr=2", "data.sources.wide.train.width=broad"])
except ValueError as error:
    print(json.dumps({"shape": list(batch["image"].shape), "refused": str(error)}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installer makes of the package: its modules, and a ``.dist-info`` with the entry points."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(PLUGIN / "src", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups))
    return folder


def _python(script: str, *arguments: str, site: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=PLUGIN,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_trains_with_everything_that_the_package_brings(site: Path, tmp_path: Path) -> None:
    told = json.loads(_python(TRAINS, str(tmp_path / "run"), site=site).splitlines()[-1])
    # Twice as wide as high, as the package's preparation says.
    assert told["shape"] == [2, 3, 16, 32]
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.csv") if row.get("data/largest/share") is not None]
    assert len(rows) == 4
    # Shares of 1 and 1/4: 16 of 20 samples.
    assert rows[-1]["data/largest/share"] == pytest.approx(80.0)
    assert rows[-1]["data/share/narrow"] == pytest.approx(0.8)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["data"]["sources"]["train"] == {"narrow": 8, "wide": 8}
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report["samples"] == {"narrow": 8, "wide": 8}
    assert {"index", "first batch", "epochs"} <= set(report["stages"])
    # Its configuration is checked like ours.
    assert "unknown key 'powr' of Harmonic; did you mean 'power'?" in told["refused"]
    assert "data.sources.wide.train.width" in told["refused"]
    assert "expected int, got str 'broad'" in told["refused"]
