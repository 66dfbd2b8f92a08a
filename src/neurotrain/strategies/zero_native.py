"""Checkpoints that DeepSpeed itself wrote, as its engine and Lightning's own strategy do: a folder of shards."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from neurotrain.storage.tensors import read_checkpoint

log = logging.getLogger(__name__)

_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def consolidate_zero(folder: Path) -> dict[str, Tensor]:
    """Merge the shards of ZeRO 1, 2 or 3 into whole weights, in one process, whatever wrote them at which world size.

    The shards are pickles. DeepSpeed reads them with ``weights_only=False``; here its merging runs under
    ``weights_only=True`` with the few classes that it writes, so that nothing in them can run.

    Args:
        folder: with the file ``latest``, which names the folder of the shards in it.

    Returns:
        Float32 weights and buffers in main memory, by their names in the task; of 16-bit training the float32 ones.

    Raises:
        FileNotFoundError: if there are no such shards.
        ValueError: if shards are missing, or hold other objects than tensors and plain values.
    """
    tag = _tag(folder)
    from deepspeed.utils import zero_to_fp32

    merge = cast(Any, zero_to_fp32).get_fp32_state_dict_from_zero_checkpoint
    told = StringIO()
    try:
        with _plain_only(), redirect_stdout(told):
            found: dict[str, Tensor] = {**_kept_whole(folder / tag), **merge(str(folder), tag=tag)}
    except pickle.UnpicklingError as error:
        raise ValueError(f"{folder / tag} holds more than tensors and plain values, it is not read: {error}") from error
    log.debug("%s", told.getvalue())
    return {name: tensor.detach().cpu() for name, tensor in found.items()}


def _kept_whole(shards: Path) -> dict[str, Tensor]:
    """Parameters as the first rank has them below stage 3; DeepSpeed's merging leaves frozen ones out under stage 1."""
    first = shards / "mp_rank_00_model_states.pt"
    if not first.is_file():
        return {}
    state: dict[str, Tensor] = read_checkpoint(first)["module"]
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _tag(folder: Path) -> str:
    latest = folder / "latest"
    if not latest.is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint of DeepSpeed: it has no file 'latest'")
    tag = latest.read_text(encoding="utf-8").strip()
    if not tag or Path(tag).name != tag:
        raise ValueError(f"{latest} names {tag!r}, which is no folder beside it")
    if not (folder / tag).is_dir():
        raise FileNotFoundError(f"{folder / tag} is missing, which {latest} names")
    return tag


@contextmanager
def _plain_only() -> Generator[None]:
    """Let ``torch.load`` read tensors, plain values and what DeepSpeed's own shards are made of, whoever calls it."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    earlier = os.environ.get(_FORCED)
    os.environ[_FORCED] = "1"
    allowed: list[Any] = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    try:
        with torch.serialization.safe_globals(allowed):
            yield
    finally:
        if earlier is None:
            del os.environ[_FORCED]
        else:
            os.environ[_FORCED] = earlier
