from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from neurotrain.app.command import help_text
from neurotrain.app.overrides import config_folder


def test_help_names_every_shipped_choice() -> None:
    text = help_text()
    for path in config_folder().rglob("*.yaml"):
        if path.parent != config_folder():
            assert path.stem in text


def test_help_names_the_users_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    (tmp_path / "configs" / "experiment" / "mine.yaml").touch()
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line in help_text().splitlines() if line.startswith("  experiment: ")]
    assert {"drive_unet", "mine"} <= set(line.removeprefix("  experiment: ").split(", "))


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['train.py', '--help']\n"
        "from neurotrain.app.command import main\n"
        "main()\n"
        "assert not {'torch', 'lightning', 'hydra'} & sys.modules.keys(), 'heavy'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "experiment=NAME" in done.stdout
