"""Weights of a checkpoint as one safetensors file: whole, bit for bit, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neurotrain.app.cli import main
from neurotrain.app.weights_command import export_weights, read_weights


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    table = torch.randn(3, 2)
    state = {"network.table": table, "network.tied": table, "network._extra_state": {"words": ["a"]}, "running": table}
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": state, "callbacks": {}}, path)
    return path


def test_the_command_writes_the_network_and_what_it_keeps_beside_tensors(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "network.safetensors"
    with pytest.raises(SystemExit) as ended:
        main(["weights", "export", str(checkpoint), str(output)])
    assert ended.value.code == 0
    assert "2 tensors" in capsys.readouterr().out
    table = torch.load(checkpoint, weights_only=True)["state_dict"]["network.table"]
    found = read_weights(output)
    assert found.keys() == {"table", "tied", "_extra_state"}
    assert torch.equal(found["table"], table)
    assert torch.equal(found["tied"], table)
    assert found["_extra_state"] == {"words": ["a"]}
    assert [path.name for path in output.parent.iterdir()] == ["network.safetensors"]


def test_what_is_not_there_is_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"part='netwrok' is not in .*: it holds network"):
        export_weights(checkpoint, tmp_path / "a.safetensors", part="netwrok")
    with pytest.raises(ValueError, match="keeps no moving average"):
        export_weights(checkpoint, tmp_path / "a.safetensors", averaged=True)
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        export_weights(checkpoint, tmp_path / "a.pt")
