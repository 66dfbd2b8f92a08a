"""Other shapes of the same configuration: LightningCLI's YAML, experiments in TOML, SimpleTuner's JSON."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from neurotrain.app.compose import Configuration

_GLOBAL = "# @package _global_\n"


def to_lightning_cli(config: Configuration, *, run_dir: Path) -> dict[str, Any]:
    """Turn a composed configuration into what ``neurotrain fit --config FILE`` reads.

    Args:
        config: from ``compose``.
        run_dir: ``trainer.default_root_dir`` of the run that the file describes.

    Returns:
        ``seed_everything``, ``trainer``, ``model`` and ``data`` in LightningCLI's shape: ``_target_`` becomes
        ``class_path`` and the other keys ``init_args``.
    """
    values = config.bound_to(run_dir)
    trainer = {key: value for key, value in values["trainer"].items() if not key.startswith("_")}
    members = {group: [node for node in values[group].values() if node] for group in ("callbacks", "logger")}
    trainer["callbacks"] = [_class_path(node) for node in members["callbacks"]]
    trainer["logger"] = [_class_path(node) for node in members["logger"]] or False
    trainer["default_root_dir"] = str(run_dir)
    return {
        "seed_everything": values["seed"],
        "trainer": trainer,
        "model": _class_path(values["model"]),
        "data": _class_path(values["data"]),
    }


def _class_path(node: object) -> Any:  # noqa: ANN401 - any YAML value
    if isinstance(node, Mapping):
        arguments = {key: _class_path(value) for key, value in node.items() if key not in ("_target_", "_partial_")}
        return {"class_path": node["_target_"], "init_args": arguments} if "_target_" in node else arguments
    if isinstance(node, list | tuple):
        return [_class_path(item) for item in node]
    return node


def toml_to_yaml(source: Path) -> str:
    r"""Turn an experiment written in TOML into the text of the YAML file that Hydra reads.

    A table ``[select]`` holds the groups (``data = "drive"``, ``"model/network" = "wnet"``); everything else is
    values, as they would stand in ``configs/experiment/NAME.yaml``.

    Args:
        source: the TOML file.

    Returns:
        Text for ``configs/experiment/<name>.yaml``.

    Raises:
        ValueError: if the file is no TOML, or ``select`` holds anything but strings.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "mine.toml"
        >>> _ = file.write_text('seed = 3\n[select]\ndata = "drive"\n[trainer]\nmax_epochs = 2\n')
        >>> print(toml_to_yaml(file))
        # @package _global_
        defaults:
        - override /data: drive
        name: mine
        seed: 3
        trainer:
          max_epochs: 2
        <BLANKLINE>
    """
    try:
        values = tomllib.loads(source.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source}: {error}") from None
    except RecursionError:
        raise ValueError(f"{source}: nests too deeply") from None
    select = values.pop("select", {})
    if not isinstance(select, dict) or not all(isinstance(choice, str) for choice in select.values()):
        raise ValueError(f"{source}: [select] names one choice a group, as strings, got {select!r}")
    defaults = [{f"override /{group}": choice} for group, choice in select.items()]
    body: dict[str, Any] = {"defaults": defaults} if defaults else {}
    body |= {"name": source.stem, **values}
    return _GLOBAL + yaml.safe_dump(body, sort_keys=False)


def backends_to_yaml(source: Path, output: Path | None, options: Sequence[str]) -> str:
    """Turn SimpleTuner's ``multidatabackend.json`` into YAML; the report goes to standard error.

    Args:
        source: the file.
        output: where the text will stand: below a folder ``experiment`` it is an experiment, else data alone.
        options: ``key=value`` of the trainer, for variables of the file and keys that it leaves to the trainer.

    Returns:
        The text.

    Raises:
        BackendsError: lists everything that is wrong or has no counterpart.
        ValueError: if an option is not ``key=value``.
    """
    from neurotrain.app.simpletuner import convert_file

    pairs = [option.partition("=") for option in options]
    if wrong := [key for key, separator, _ in pairs if not separator or not key]:
        raise ValueError(f"--set {wrong[0]}: expected KEY=VALUE")
    text, conversion = convert_file(
        source,
        name=(output or source).stem,
        experiment=output is not None and output.parent.name == "experiment",
        options={key: value for key, _, value in pairs},
    )
    sys.stderr.write(f"{conversion}\n")
    return text
