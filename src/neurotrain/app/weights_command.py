"""``neurotrain weights export``: the network of any checkpoint as one safetensors file."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurotrain.documents import parse_json

if TYPE_CHECKING:
    from torch import Tensor

_STATES = "states"


def add_weights_commands(commands: Any) -> None:  # noqa: ANN401 - argparse does not name its type in public
    """Add ``weights export`` to the subparsers of a command line."""
    weights = commands.add_parser("weights", help="weights of a run for others").add_subparsers(required=True)
    export = weights.add_parser("export", help="a checkpoint's network, of any strategy, as one safetensors file")
    export.add_argument(
        "checkpoint", type=Path, help="of a run: checkpoints/last.ckpt; or a folder of shards of DeepSpeed or FSDP"
    )
    export.add_argument("output", type=Path, help="file to write, *.safetensors")
    export.add_argument("--part", default="network", help="of the task, by its name; `network` where not given")
    export.add_argument("--averaged", action="store_true", help="the moving average in place of the weights")
    export.set_defaults(run=_export)


def export_weights(checkpoint: Path, output: Path, *, part: str = "network", averaged: bool = False) -> int:
    """Write the weights of one part of a task, bit for bit.

    Args:
        checkpoint: of a run under any strategy, or a folder of shards as DeepSpeed's engine, and Lightning's own
            strategies of DeepSpeed and FSDP, write it.
        output: ends in ``.safetensors``; written whole or not at all.
        part: name of the module in the task.
        averaged: whether to take the moving average that the run kept.

    Returns:
        Number of tensors.

    Raises:
        FileNotFoundError: if there is no such checkpoint, or a part of it is missing.
        ValueError: if the checkpoint has no such part or no average, or the file another ending.
        CheckpointError: if the checkpoint holds more than tensors and plain values.
    """
    from safetensors.torch import save_file
    from torch import Tensor

    from neurotrain.storage.tensors import read_checkpoint, state_of

    if output.suffix != ".safetensors":
        raise ValueError(f"output={output}: expected a name that ends in .safetensors")
    if checkpoint.is_dir():
        weights = _merged(checkpoint, averaged=averaged)
    else:
        found = read_checkpoint(checkpoint)
        weights = state_of(found, checkpoint)
        if averaged:
            weights = {**weights, **_average(found.get("callbacks", {}), checkpoint)}
    state = {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")}
    # Tensors that share memory, as tied ones do, are written each for itself.
    tensors = {name: value.clone().contiguous() for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        parts = sorted({name.partition(".")[0] for name in weights if "." in name})
        raise ValueError(f"part={part!r} is not in {checkpoint}: it holds {', '.join(parts)}")
    others = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.tmp")
    save_file(tensors, temporary, metadata={"format": "pt", _STATES: json.dumps(others)})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(output)
    return len(tensors)


def read_weights(path: Path) -> dict[str, Any]:
    """Read what :func:`export_weights` wrote, for ``network.load_state_dict``.

    Args:
        path: of the file.

    Returns:
        Tensors by name, and what a network keeps beside them, such as a vocabulary.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return {**tensors, **parse_json((file.metadata() or {}).get(_STATES, "{}"), where=path)}


def _merged(folder: Path, *, averaged: bool) -> dict[str, Tensor]:
    """Weights out of a folder of shards, by their names in the task."""
    from neurotrain.strategies import consolidate_distributed, consolidate_zero
    from neurotrain.strategies.distributed_native import METADATA

    if averaged:
        raise ValueError(f"averaged=true: {folder} is a folder of shards, which keeps no moving average")
    if (folder / "latest").is_file():
        found = consolidate_zero(folder)
    elif (folder / METADATA).is_file():
        found = consolidate_distributed(folder)
    else:
        raise ValueError(
            f"{folder} is a folder without 'latest' (DeepSpeed) and without {METADATA!r} (FSDP): no checkpoint"
        )
    wrapped = "_forward_module."  # of Lightning's own strategies
    return {name.removeprefix(wrapped): tensor for name, tensor in found.items()}


def _average(callbacks: Mapping[str, Any], checkpoint: Path) -> dict[str, Tensor]:
    for state in callbacks.values():
        if isinstance(state, dict) and "average" in state:
            return state["average"]
    raise ValueError(f"averaged=true: {checkpoint} keeps no moving average (callbacks.average)")


def _export(parsed: argparse.Namespace) -> int:
    count = export_weights(parsed.checkpoint, parsed.output, part=parsed.part, averaged=parsed.averaged)
    sys.stdout.write(f"{parsed.output}: {count} tensors\n")
    return 0
