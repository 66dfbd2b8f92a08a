"""Weights of a checkpoint as one safetensors file: whole, bit for bit, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neurotrain.app.cli import main
from neurotrain.app.weights_command import export_weights, read_weights
from neurotrain.storage.tensors import CheckpointError


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


def _sharded(folder: Path, prefix: str, **state: torch.Tensor) -> Path:
    from torch.distributed import checkpoint

    checkpoint.save(
        {prefix: state, "optimizer_0": {"step": 3, "mean": torch.ones(2)}}, checkpoint_id=folder, no_dist=True
    )
    return folder


@pytest.mark.filterwarnings("ignore:.*torch.distributed:UserWarning")
@pytest.mark.parametrize("prefix", ["state_dict", "model"])
def test_a_folder_of_fsdp_is_written_as_one_file(
    prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {"network.weight": torch.randn(5, 3), "network.count": torch.tensor(7), "loss.weight": torch.ones(1)}
    weights["network.half"] = torch.randn(4).to(torch.bfloat16)
    folder = _sharded(tmp_path / "step-1.ckpt", prefix, **weights)
    with pytest.raises(SystemExit) as ended:
        main(["weights", "export", str(folder), str(tmp_path / "out.safetensors")])
    assert ended.value.code == 0, capsys.readouterr().err
    found = read_weights(tmp_path / "out.safetensors")
    assert found.keys() == {"weight", "count", "half"}
    assert all(torch.equal(value, weights[f"network.{name}"]) for name, value in found.items())
    with pytest.raises(ValueError, match="a folder of shards, which keeps no moving average"):
        export_weights(folder, tmp_path / "a.safetensors", averaged=True)


def test_a_folder_of_deepspeed_is_merged_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two processes are merged in tests/strategies; here that the command asks for it."""
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "latest").write_text("1")
    merged = {"_forward_module.network.weight": torch.ones(2)}
    monkeypatch.setattr("neurotrain.strategies.consolidate_zero", lambda folder: merged)
    assert export_weights(tmp_path / "shards", tmp_path / "out.safetensors") == 1
    assert read_weights(tmp_path / "out.safetensors").keys() == {"weight"}
    (tmp_path / "shards" / "latest").unlink()
    with pytest.raises(ValueError, match="without 'latest'"):
        export_weights(tmp_path / "shards", tmp_path / "b.safetensors")


@pytest.mark.filterwarnings("ignore:.*torch.distributed:UserWarning")
def test_folders_that_are_not_what_they_say(tmp_path: Path) -> None:
    from neurotrain.strategies import consolidate_distributed

    folder = _sharded(tmp_path / "sound", "state_dict", **{"network.weight": torch.ones(1000)})
    (shard,) = folder.glob("*.distcp")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(CheckpointError, match=r"its tensors claim 4000 bytes|is no checkpoint, or a damaged one"):
        consolidate_distributed(folder)
    shard.unlink()
    (folder / "padding").write_bytes(bytes(8000))
    with pytest.raises(FileNotFoundError):
        consolidate_distributed(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="metadata"):
        consolidate_distributed(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="holds no weights of a task"):
        consolidate_distributed(_sharded(tmp_path / "other", "something", weight=torch.ones(2)))
