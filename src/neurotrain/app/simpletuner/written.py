"""A file of data backends as the text of a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from neurotrain.app.simpletuner.conversion import Conversion, convert_backends
from neurotrain.app.simpletuner.journal import BackendsError
from neurotrain.app.simpletuner.nodes import flattened
from neurotrain.documents import parse_json


def convert_file(source: Path, *, name: str, experiment: bool, options: Mapping[str, str]) -> tuple[str, Conversion]:
    """Turn ``multidatabackend.json`` into the text of ``configs/data/NAME.yaml`` or ``configs/experiment/NAME.yaml``.

    Args:
        source: the file.
        name: of the configuration.
        experiment: write an experiment that selects the data, instead of the data alone.
        options: of the trainer, see :func:`~neurotrain.app.simpletuner.conversion.convert_backends`.

    Returns:
        The text, which holds no secret, and the conversion with its report.

    Raises:
        BackendsError: lists everything that is wrong or has no counterpart.
    """
    try:
        entries = parse_json(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackendsError([f"{source}: is no JSON: {error}"]) from None
    if not isinstance(entries, list):
        raise BackendsError([f"{source}: expected a list of backends, got {type(entries).__name__}"])
    conversion = convert_backends(entries, options=options)
    return _text(conversion, source=source, name=name, experiment=experiment), conversion


def _text(conversion: Conversion, *, source: Path, name: str, experiment: bool) -> str:
    header = [f"# From {source.name}; every difference from it:"]
    header += [f"#   {line}" for line in str(conversion).splitlines()]
    body: dict[str, Any]
    if experiment:
        defaults, values = flattened(conversion.node, at="data")
        body = {"defaults": [*defaults[1:], "_self_", {"override /data": "_MixtureDataModule"}], "name": name}
        body["data"] = values
        header.insert(0, "# @package _global_")
    else:
        defaults, values = flattened(conversion.node)
        body = {"defaults": [*defaults, "_self_"], **values}
    return "\n".join([*header, yaml.safe_dump(body, sort_keys=False, width=120)])
