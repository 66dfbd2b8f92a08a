"""Configurations that name what nobody registered: composed, read from a run, and said to Hydra itself."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from canaries import Canary

import neurotrain
from neurotrain.app.hydra_section import section_problems
from neurotrain.app.launch import launch
from neurotrain.app.registry import FAMILIES, members, register
from neurotrain.app.sampling import _told_model
from neurotrain.app.strict import ConfigurationError, check, instantiate

FILE = "hostile.yaml"

# `COMMAND` becomes the canary's. Each value stands where a network is expected.
NODES: dict[str, tuple[Any, str]] = {
    "a call through an import": ({"_target_": "logging.os.system", "command": "COMMAND"}, "target 'logging.os.system'"),
    "a call": ({"_target_": "os.system", "command": "COMMAND"}, "target 'os.system'"),
    "a builtin": ({"_target_": "builtins.eval", "_args_": ["1"]}, "target 'builtins.eval'"),
    "a process": ({"_target_": "subprocess.Popen", "args": ["touch"]}, "target 'subprocess.Popen'"),
    "zen processing": (
        {"_target_": "hydra_zen.funcs.zen_processing", "_zen_target": "os.system", "command": "COMMAND"},
        "hydra_zen.funcs.zen_processing.*|_zen_target",
    ),
    "zen wrappers": (
        {"_target_": "neurotrain.networks.unet.UNet", "_zen_wrappers": ["os.system"]}, "'_zen_wrappers' is reserved"
    ),
    "zen target on what is registered": (
        {"_target_": "neurotrain.networks.unet.UNet", "_zen_target": "os.system"}, "'_zen_target' is reserved"
    ),
    "zen get_obj": ({"_target_": "hydra_zen.funcs.get_obj", "path": "os.system"}, "hydra_zen.funcs.get_obj"),
    "zen partial": (
        {"_target_": "hydra_zen.funcs.zen_processing", "_zen_partial": True, "_zen_target": "os.system"}, "zen"
    ),
    "a partial": ({"_target_": "functools.partial", "func": "os.system"}, "functools.partial"),
    "hydra's own": ({"_target_": "hydra.utils.call", "config": {"_target_": "os.system"}}, "hydra.utils.call"),
    "hydra's method": ({"_target_": "hydra.utils.get_method", "path": "os.system"}, "hydra.utils.get_method"),
    "torch's pickles": ({"_target_": "torch.load", "f": "x.pt", "weights_only": False}, "target 'torch.load'"),
    "torch's hub": ({"_target_": "torch.hub.load", "repo_or_dir": "a/b", "model": "x"}, "target 'torch.hub.load'"),
    "innards": ({"_target_": "neurotrain.networks.unet.UNet.__init__.__globals__"}, "expected a dotted path"),
    "through our module": ({"_target_": "neurotrain.app.allow.os.system"}, "target 'neurotrain.app.allow.os.system'"),
    "positional arguments": ({"_target_": "neurotrain.networks.unet.UNet", "_args_": ["x"]}, "'_args_' is reserved"),
    "another way to convert": (
        {"_target_": "neurotrain.networks.unet.UNet", "_convert_": "all"}, "'_convert_' is reserved"
    ),
    "a mapping for a target": ({"_target_": {"_target_": "os.system"}}, "expected a dotted path"),
    "a list for a target": ({"_target_": ["os.system"]}, "expected a dotted path"),
}  # fmt: skip

PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "as it is": lambda node: {"model": {"network": node}},
    "in a list": lambda node: {"model": [1, [node]]},
    "in a mapping in a list": lambda node: {"model": [{"deep": {"er": node}}]},
    "as an argument": lambda node: {"model": {"_target_": "neurotrain.networks.unet.UNet", "widths": node}},
}


def with_command(value: Any, command: str) -> Any:  # noqa: ANN401 - any YAML value
    if isinstance(value, Mapping):
        return {key: with_command(inner, command) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_command(inner, command) for inner in value]
    return command if value == "COMMAND" else value


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NODES)
def test_nodes(name: str, place: str, canary: Canary) -> None:
    node, reason = NODES[name]
    config = PLACES[place](with_command(node, canary.command))
    problems = check(config, allow=register(), origin=lambda _: FILE, root=None)
    assert any(re.search(reason, problem.message) and problem.file == FILE for problem in problems), problems
    with pytest.raises((ConfigurationError, TypeError)):
        instantiate(config, allow=register())  # also where nobody checked before


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes ``configs/experiment/hostile.yaml`` into the working directory."""

    def write(body: str) -> Path:
        path = tmp_path / "configs" / "experiment" / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# @package _global_\n" + textwrap.dedent(body))
        return path

    monkeypatch.chdir(tmp_path)
    return write


TARGETS = """
lab: {call: os.popen, net: {_target_: os.execv, path: COMMAND}, list: [{_target_: os.spawnl, path: COMMAND}]}
model:
  network: {_target_: logging.os.system, command: COMMAND}
  loss: {_target_: '${lab.call}', cmd: COMMAND}
  schedule: ${lab.net}
callbacks: {x: {_target_: subprocess.Popen, args: COMMAND}}
"""


def test_a_file_is_told_with_all_that_it_calls(experiment: Callable[[str], Path], canary: Canary) -> None:
    experiment(TARGETS.replace("COMMAND", f"'{canary.command}'"))
    with pytest.raises(ConfigurationError) as refused:
        neurotrain.compose("hostile", ["data=synthetic_drive"])
    told = str(refused.value).splitlines()
    for key, target in {
        "lab.net._target_": "os.execv",
        "lab.list.0._target_": "os.spawnl",
        "model.network._target_": "logging.os.system",
        "model.loss._target_": "os.popen",
        "model.schedule._target_": "os.execv",
        "callbacks.x._target_": "subprocess.Popen",
    }.items():
        assert any(line.startswith(f"{key} (configs/experiment/hostile.yaml): target {target!r}") for line in told), key


@pytest.mark.parametrize("tag", ["object/apply:os.system [COMMAND]", "name:os.system", "module:this", "tuple [1]"])
def test_python_objects_in_a_file(tag: str, experiment: Callable[[str], Path], canary: Canary) -> None:
    experiment(f"name: !!python/{tag}".replace("COMMAND", f"'{canary.command}'"))
    with pytest.raises(ValueError, match=r"unreadable YAML.*hostile\.yaml"):
        neurotrain.compose("hostile", ["data=synthetic_drive"])


SECTIONS: dict[str, tuple[str, str]] = {
    "a callback": ("callbacks: {x: {_target_: os.system, command: COMMAND}}", "hydra.callbacks.x._target_"),
    "a zen callback": (
        "callbacks: {x: {_target_: hydra_zen.funcs.zen_processing, _zen_target: os.system}}", "'_zen_target' is res"
    ),
    "a launcher's argument": ("launcher: {x: [{_target_: os.system, command: COMMAND}]}", "target 'os.system'"),
    "a sweeper": ("sweeper: {_target_: os.system, command: COMMAND}", "hydra.sweeper._target_"),
    "a logging factory": ("job_logging: {handlers: {x: {(): os.system, command: COMMAND}}}", "'os.system' may not"),
    "a logging class": ("hydra_logging: {handlers: {x: {class: subprocess.Popen, args: [ls]}}}", "'subprocess.Popen'"),
    "a logging import": (
        "job_logging: {handlers: {x: {class: logging.StreamHandler, stream: 'ext://os.system'}}}", "may import a name"
    ),
    "a logging interpolation": (
        "job_logging: {handlers: {x: {class: logging.StreamHandler, stream: '${lab}'}}}", "may import a name"
    ),
    "the list of what is allowed": ("job: {env_set: {NEUROTRAIN_ALLOW: os}}", "hydra.job.env_set.NEUROTRAIN_ALLOW"),
    "a preloaded library": ("job: {env_set: {LD_PRELOAD: /tmp/x.so}}", "hydra.job.env_set.LD_PRELOAD"),
}  # fmt: skip


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_of_hydra(name: str, canary: Canary) -> None:
    import yaml

    body, reason = SECTIONS[name]
    problems = section_problems(yaml.safe_load(body.replace("COMMAND", canary.command)))
    assert any(reason in str(problem) for problem in problems), problems


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Types a command line of ``train.py``, which has to end with 2."""

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with pytest.raises(SystemExit) as end:
            launch()
        assert end.value.code == 2

    return run


LINES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a section that Hydra would act on": (
        "hydra: {mode: MULTIRUN, callbacks: {x: {_target_: os.system, command: COMMAND}}}",
        ("--cfg", "job"),
        r"hydra\.callbacks\.x\._target_ \(configs/experiment/hostile\.yaml\): target 'os\.system' is refused",
    ),
    "a pickled configuration": ("", ("--experimental-rerun=config.pickle",), "reads a pickle"),
    "a pickled configuration, abbreviated": ("", ("--exp", "config.pickle"), "reads a pickle"),
    "a python object": ("name: !!python/object/apply:os.system [x]", (), r"unreadable YAML.*hostile\.yaml"),
}


@pytest.mark.parametrize("name", LINES)
def test_command_lines(
    name: str,
    typed: Callable[..., None],
    experiment: Callable[[str], Path],
    canary: Canary,
    capsys: pytest.CaptureFixture[str],
) -> None:
    body, arguments, reason = LINES[name]
    experiment(body.replace("COMMAND", f"'{canary.command}'"))
    typed("experiment=hostile", *arguments)
    assert re.search(reason, capsys.readouterr().err)


RUNS: dict[str, tuple[str, str]] = {
    "a call": ("model: {_target_: os.system, command: COMMAND}", "target 'os.system' is refused"),
    "a nested call": (
        "model: {_target_: neurotrain.tasks.distillation.task.DistillationTask, x: [{_target_: os.system}]}",
        "target 'os.system' is refused",
    ),
    "through interpolation": ("a: os.system\nmodel: {_target_: '${a}'}", "target 'os.system' is refused"),
    "a python object": ("model: !!python/object/apply:os.system [COMMAND]", "unreadable YAML"),
    "no model": ("model: 3", "holds no model"),
    "a loop": ("model: ${model}", "config.yaml"),
}


@pytest.mark.parametrize("name", RUNS)
def test_configurations_of_run_directories(name: str, tmp_path: Path, canary: Canary) -> None:
    body, reason = RUNS[name]
    file = tmp_path / "config.yaml"
    file.write_text(body.replace("COMMAND", f"'{canary.command}'"))
    with pytest.raises(ValueError, match=reason) as refused:
        _told_model(file, key="beside.other")
    assert "config.yaml" in str(refused.value)


def test_no_option_lets_a_configuration_run_code_of_a_model() -> None:
    import inspect

    banned = {"trust_remote_code", "weights_only", "allow_pickle", "pickle", "unsafe", "use_safetensors"}
    found = [
        f"{member.__qualname__}.{name}"
        for family in FAMILIES
        for _, member in members(family)
        if member.__module__.startswith("neurotrain.")
        for name in inspect.signature(member.__init__).parameters
        if name in banned
    ]
    assert found == []
