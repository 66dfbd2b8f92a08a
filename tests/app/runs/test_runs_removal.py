"""What ``rm`` cannot be talked into, whatever an index says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from run_folders import make_run

from neurotrain.app.runs.errors import RunsError
from neurotrain.app.runs.reading import read_run
from neurotrain.app.runs.removal import remove


@pytest.mark.parametrize("run_id", ["../outside/run", "linked/run", "drive/link", "drive", "", "/etc", "gone"])
def test_refused(run_id: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    facts = read_run(make_run(runs / "drive" / "one"), runs)
    make_run(tmp_path / "outside" / "run")
    (runs / "linked").symlink_to(tmp_path / "outside")
    (runs / "drive" / "link").symlink_to(tmp_path / "outside" / "run")
    with pytest.raises(RunsError):
        remove(runs, replace(facts, id=run_id))
    assert (runs / "drive" / "one" / "config.yaml").is_file()
    assert (tmp_path / "outside" / "run" / "config.yaml").is_file()
