"""Checkpoints and weights that call something, claim something, or unpack to more than they are."""

from __future__ import annotations

import copy
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from canaries import Canary
from torch import nn

import neurotrain
from neurotrain.app.cli import lightning_cli, main
from neurotrain.app.compose import Configuration
from neurotrain.app.convert import to_lightning_cli
from neurotrain.app.run_directory import ResumeError
from neurotrain.app.sampling import _restore
from neurotrain.app.weights_command import export_weights
from neurotrain.diffusion.families.base import load_weights as load_role
from neurotrain.diffusion.scores import load_classifier
from neurotrain.losses import DiceLoss
from neurotrain.networks import UNet
from neurotrain.networks.classification import ResNetSmall, Timm
from neurotrain.networks.clip.files import load_weights as load_clip
from neurotrain.storage.tensors import CheckpointError, read_checkpoint, read_safetensors, read_state
from neurotrain.tasks import SegmentationTask, SoftTargets

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")

STATE = {"network.weight": torch.ones(2)}


def zipped(path: Path, canary: Canary) -> None:
    torch.save({"state_dict": {**STATE, "x": canary}}, path)


def legacy(path: Path, canary: Canary) -> None:
    torch.save({"state_dict": {**STATE, "x": canary}}, path, _use_new_zipfile_serialization=False)


def averaged(path: Path, canary: Canary) -> None:
    torch.save({"state_dict": STATE, "callbacks": {"WeightAveraging": {"average": canary, "updates": 1}}}, path)


def plain(path: Path, canary: Canary) -> None:
    path.write_bytes(pickle.dumps({"state_dict": {"x": canary}}))


def packed(path: Path, canary: Canary) -> None:
    """A sound checkpoint whose records are compressed, with a record that unpacks a thousandfold."""
    torch.save({"state_dict": STATE}, path)
    with zipfile.ZipFile(path) as sound:
        records = {name: sound.read(name) for name in sound.namelist()}
    records["archive/data/9"] = bytes(2**24)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def cut(path: Path, canary: Canary) -> None:
    torch.save({"state_dict": STATE}, path)
    path.write_bytes(path.read_bytes()[:-200])


def listed(path: Path, canary: Canary) -> None:
    torch.save([1, 2], path)


def nothing(path: Path, canary: Canary) -> None:
    path.write_bytes(b"")


def pickled(*operations: bytes) -> Callable[[Path, Canary], None]:
    """A file of torch's format whose pickle is written by hand: the value of ``state_dict``."""

    def write(path: Path, canary: Canary) -> None:
        text = b"\x80\x02}X\x0a\x00\x00\x00state_dict" + b"".join(operations) + b"s."
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {"data.pkl": text, "version": b"3\n", "byteorder": b"little"}.items():
                archive.writestr(f"archive/{name}", content)

    return write


def laughing(path: Path, canary: Canary) -> None:
    value: list[Any] = [1]
    for _ in range(60):
        value = [value, value]
    torch.save({"state_dict": value}, path)


def spread(path: Path, canary: Canary) -> None:
    torch.save({"state_dict": {"network.weight": torch.zeros(1).expand(2**40)}}, path)


def spread_a_little(path: Path, canary: Canary) -> None:
    torch.save({"state_dict": [torch.zeros(1).expand(2**10, 2**10) for _ in range(64)]}, path)


def piled(path: Path, canary: Canary) -> None:
    """One record of a megabyte that a hundred names of the directory point to."""
    torch.save({"state_dict": {f"w{n}": torch.zeros(2**18 if n == 0 else 1) for n in range(100)}}, path)
    with zipfile.ZipFile(path) as sound:
        records = {name: sound.read(name) for name in sound.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
        large = archive.getinfo(next(name for name in records if name.endswith("/data/0")))
        for info in archive.infolist():
            if "/data/" in info.filename:
                info.header_offset, info.file_size, info.compress_size = large.header_offset, 2**20, 2**20
                info.CRC = large.CRC
        archive._didModify = True  # type: ignore[attr-defined]  # so that its directory is written anew


def short(path: Path, canary: Canary) -> None:
    """A tensor of more numbers than its record has."""
    torch.save({"state_dict": {"network.weight": torch.ones(1000)}}, path)
    with zipfile.ZipFile(path) as sound:
        records = {name: sound.read(name) for name in sound.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content[:16] if name.endswith("/data/0") else content)


FILES: dict[str, tuple[Callable[[Path, Canary], None], str]] = {
    "lists of one list": (laughing, "refused: a dict in it stands for .* values more than are written"),
    "lists in lists": (pickled(b"]" * 9999, b"a" * 9998), "refused: a list in it nests deeper than 100 levels"),
    "itself": (pickled(b"]q\x01h\x01a"), "refused: a list in it stands within itself"),
    "one number as terabytes": (spread, "refused: its tensors claim 4398046511104 bytes, the file has"),
    "one number, many times": (spread_a_little, "refused: its tensors claim 268435456 bytes, the file has"),
    "records over each other": (piled, "its records claim .* bytes, the file has .*: refused as a bomb"),
    "a record that is too short": (short, "no checkpoint, or a damaged one"),
    "bytes without end": (
        pickled(b"c__builtin__\nbytearray\n\x8a\x08", (2**62).to_bytes(8, "little"), b"\x85R"),
        "no checkpoint, or a damaged one .*MemoryError",
    ),
    "zeros for nothing": (
        pickled(b"c__builtin__\nbytearray\n\x8a\x05", (2**28).to_bytes(5, "little"), b"\x85R"),
        "refused: its tensors claim 268435456 bytes",
    ),
    "text longer than the file": (pickled(b"X\xff\xff\xff\x7f"), "no checkpoint, or a damaged one|refused"),
    "reduce": (zipped, r"it would call posix\.system when loaded"),
    "reduce in the old format": (legacy, r"it would call posix\.system when loaded"),
    "reduce in the averaged weights": (averaged, r"it would call posix\.system when loaded"),
    "a bare pickle": (plain, "refused|no checkpoint"),
    "packed records": (packed, "is compressed, .* bytes to .*decompression bomb"),
    "cut": (cut, "no checkpoint, or a damaged one|refused"),
    "a list": (listed, "holds a list, expected a dictionary"),
    "empty": (nothing, "no checkpoint, or a damaged one|refused"),
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_files(name: str, mapped: bool, tmp_path: Path, canary: Canary) -> None:
    write, reason = FILES[name]
    path = tmp_path / "hostile.ckpt"
    write(path, canary)
    with pytest.raises(CheckpointError, match=rf"hostile\.ckpt: .*({reason})") as refused:
        read_checkpoint(path, mapped=mapped)
    assert "\n" not in str(refused.value)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


def test_a_checkpoint_without_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "hostile.ckpt")
    with pytest.raises(CheckpointError, match=r"hostile\.ckpt: holds no state_dict"):
        read_state(tmp_path / "hostile.ckpt")


def header(told: object, body: bytes = b"", *, length: int | None = None) -> bytes:
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape: list[int], *offsets: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": list(offsets)}


SAFETENSORS: dict[str, bytes] = {
    "a header without end": struct.pack("<Q", 2**62) + b"{}",
    "empty": b"",
    "a pickle": pickle.dumps({}),
    "zeros": b"\0" * 7,
    "a header longer than the file": header({"a": entry([1], 0, 4)}, bytes(4), length=4000),
    "a tensor longer than the file": header({"a": entry([2**20], 0, 2**22)}, bytes(4)),
    "a shape larger than its bytes": header({"a": entry([2**20, 2**20], 0, 4)}, bytes(4)),
    "a shape that overflows": header({"a": entry([2**32, 2**32, 2**32], 0, 4)}, bytes(4)),
    "tensors over each other": header({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, bytes(8)),
    "bytes that nobody has": header({"a": entry([1], 0, 4)}, bytes(4000)),
    "bytes backwards": header({"a": entry([1], 4, 0)}, bytes(4)),
    "brackets": header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors(name: str, tmp_path: Path) -> None:
    data = SAFETENSORS[name]
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"hostile\.safetensors: is no safetensors file"):
        read_safetensors(path)


def test_what_is_tied_and_nested_as_usual_is_read(tmp_path: Path) -> None:
    table = torch.ones(4, 3)
    saved = {"state_dict": {"a": table, "b": table, "c": table.T}, "loops": {"x": [(1, {2}), [table]] * 3}}
    torch.save(saved, tmp_path / "sound.ckpt")
    for mapped in (False, True):
        assert read_checkpoint(tmp_path / "sound.ckpt", mapped=mapped).keys() == saved.keys()


@pytest.mark.filterwarnings("ignore:.*torch.distributed:UserWarning")
@pytest.mark.parametrize("place", ["its description", "a part"])
def test_folders_of_shards(place: str, tmp_path: Path, canary: Canary) -> None:
    from torch.distributed import checkpoint

    folder = tmp_path / "hostile"
    checkpoint.save({"state_dict": STATE}, checkpoint_id=folder, no_dist=True)
    poisoned = pickle.dumps(canary)
    if place == "a part":
        (shard,) = folder.glob("*.distcp")
        shard.write_bytes(poisoned + bytes(len(shard.read_bytes()) - len(poisoned)))
    else:
        (folder / ".metadata").write_bytes(poisoned)
    with pytest.raises(CheckpointError, match=r"it would call posix\.system|only tensors and plain values are read"):
        export_weights(folder, tmp_path / "out.safetensors")


LOADERS: dict[str, Callable[[Path], object]] = {
    "CLIP": lambda path: load_clip(nn.Linear(2, 2), path),
    "timm": lambda path: Timm(name="test_resnet", weights=str(path)),
    "a teacher": lambda path: SoftTargets(teacher=ResNetSmall(widths=(4,), blocks=(1,)), weights=path),
    "a classifier that scores": lambda path: load_classifier(nn.Linear(2, 2), path),
    "a role": lambda path: load_role(nn.Linear(2, 2), path, "student"),
    "sampling": lambda path: _restore(nn.Module(), path, torch.device("cpu")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize("name", LOADERS)
def test_every_loader(name: str, write: Callable[[Path, Canary], None], tmp_path: Path, canary: Canary) -> None:
    path = tmp_path / "hostile.ckpt"
    write(path, canary)
    with pytest.raises(CheckpointError, match=r"hostile\.ckpt: refused: it would call posix\.system"):
        LOADERS[name](path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def small(data: Path, run_dir: Path) -> list[str]:
    return [
        *("data=synthetic_drive", f"paths.data_dir={data}", f"paths.run_dir={run_dir}", "model.threshold=null"),
        *("data.dataset.size=[96,96]", "data.dataset.train=3", "data.dataset.test=1", "data.validation=1"),
    ]


@pytest.fixture(scope="module")
def config(data: Path) -> Configuration:
    return neurotrain.compose("drive_unet", small(data, data / "new"))


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict", "sample"])
def test_weights_of_runs(stage: str, config: Configuration, data: Path, tmp_path: Path, canary: Canary) -> None:
    file = tmp_path / "hostile.ckpt"
    zipped(file, canary)
    told = replace(config, values={**config.values, "stage": stage, "ckpt": str(file)})
    with pytest.raises(CheckpointError, match=r"hostile\.ckpt: refused: it would call posix\.system"):
        neurotrain.train(told)
    assert not (data / "new").exists(), "refused before a run directory is made"


@pytest.mark.parametrize("insists", ["resume=must", "resume=CHECKPOINT"])
def test_resumed_runs(insists: str, config: Configuration, tmp_path: Path, canary: Canary) -> None:
    file = tmp_path / "old" / "checkpoints" / "step-00000001.ckpt"
    file.parent.mkdir(parents=True)
    zipped(file, canary)
    paths = {**config.values["paths"], "run_dir": str(tmp_path / "old")}
    resume = str(file) if insists == "resume=CHECKPOINT" else "must"
    told = replace(config, values={**config.values, "paths": paths, "resume": resume})
    # One that says nothing of its completeness is passed over, or refused by name.
    with pytest.raises((CheckpointError, ResumeError), match=r"step-00000001\.ckpt|no .*checkpoint"):
        neurotrain.train(told)


PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "an instantiator": ({"_instantiator": "os.system", "command": "x"}, "os.system"),
    "an instantiator through an import": ({"_instantiator": "logging.os.system"}, "logging.os.system"),
    "a class path": (
        {"_instantiator": "lightning.pytorch.cli.instantiate_module", "_class_path": "os.system"}, "os.system"
    ),
    "a class path in an argument": (
        {
            "_instantiator": "lightning.pytorch.cli.instantiate_module",
            "network": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "COMMAND"]}},
        },
        "subprocess.Popen",
    ),
    "a factory": (
        {
            "_instantiator": "lightning.pytorch.cli.instantiate_module",
            "optimizer": {"class_path": "os.system", "init_args": {"command": "COMMAND"}},
        },
        # the second where the process has closed the parser before, as LightningCLI's command line does
        r"arguments are required|'os\.system' is not allowed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_hyper_parameters(name: str, tmp_path: Path, canary: Canary) -> None:
    parameters, reason = PARAMETERS[name]
    path = tmp_path / "hostile.ckpt"
    text = repr(parameters).replace("COMMAND", canary.command)
    torch.save({"state_dict": {}, "hyper_parameters": yaml.safe_load(text), "pytorch-lightning_version": "2.6.6"}, path)
    with pytest.raises(Exception, match=reason):
        SegmentationTask.load_from_checkpoint(path, weights_only=True)


def test_load_from_checkpoint_unpickles_nothing(tmp_path: Path, canary: Canary) -> None:
    path = tmp_path / "hostile.ckpt"
    zipped(path, canary)
    with pytest.raises(pickle.UnpicklingError):
        SegmentationTask.load_from_checkpoint(path, network=UNet(widths=(4, 8)), loss=DiceLoss(mode="binary"))


@pytest.fixture(scope="module")
def sound(config: Configuration, data: Path) -> dict[str, Any]:
    """LightningCLI's file of an experiment."""
    return to_lightning_cli(config, run_dir=data / "run")


def put(place: str, value: Any, config: dict[str, Any]) -> None:  # noqa: ANN401 - any YAML value
    *way, last = place.split(".")
    for name in way:
        config = config[name]
    config[last] = value


CALL = {"class_path": "os.system", "init_args": {"command": "COMMAND"}}
COMMANDS: dict[str, tuple[Callable[[dict[str, Any]], None], tuple[str, ...], str]] = {
    "a model": (partial(put, "model", CALL), (), "'os.system' is not allowed"),
    "a factory": (partial(put, "model.init_args.optimizer", CALL), (), "'os.system' is not allowed"),
    "a partial": (
        partial(put, "model.init_args.optimizer", {"class_path": "functools.partial"}), (), "functools.partial"
    ),
    "zen processing": (
        partial(put, "model.init_args.network", {"class_path": "hydra_zen.funcs.zen_processing"}), (), "zen_processing"
    ),
    "what nobody registered": (
        partial(put, "trainer.callbacks", [{"class_path": "lightning.pytorch.callbacks.LambdaCallback"}]),
        (),
        "It is not registered; to allow a module of your own, set NEUROTRAIN_ALLOW",
    ),
    "on the command line": (lambda _: None, ("--model.class_path=os.system",), "'os.system' is not allowed"),
    "a checkpoint": (lambda _: None, ("--ckpt_path={pickled}",), "it would call posix.system when loaded"),
    "a checkpoint's hyper-parameters": (lambda _: None, ("--ckpt_path={named}",), "'os.system' is not allowed"),
    "weights_only=false": (lambda _: None, ("--ckpt_path={pickled}", "--weights_only=false"), "weights_only=false"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_lightnings_command_line(
    name: str, sound: dict[str, Any], tmp_path: Path, canary: Canary, capsys: pytest.CaptureFixture[str]
) -> None:
    change, arguments, reason = COMMANDS[name]
    config = copy.deepcopy(sound)
    change(config)
    file, pickled, named = tmp_path / "cli.yaml", tmp_path / "pickled.ckpt", tmp_path / "named.ckpt"
    file.write_text(yaml.safe_dump(config).replace("COMMAND", canary.command))
    zipped(pickled, canary)
    torch.save({"state_dict": {}, "hyper_parameters": {"_class_path": "os.system", "command": canary.command}}, named)
    typed = [argument.format(pickled=pickled, named=named) for argument in arguments]
    # Where no checkpoint is asked for, one parser instead of five.
    run = main if any("ckpt_path" in argument for argument in typed) else partial(lightning_cli, run=False)
    options = ["--config", str(file), *typed]
    with pytest.raises(SystemExit) as end:
        run(["fit", *options] if run is main else options)
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


def test_a_python_object_in_lightnings_file(tmp_path: Path, canary: Canary, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cli.yaml"
    file.write_text(f"model: !!python/object/apply:os.system ['{canary.command}']\n")
    with pytest.raises(SystemExit) as end:
        lightning_cli(["--config", str(file)], run=False)
    assert end.value.code == 2
    assert "python/object/apply" in capsys.readouterr().err
