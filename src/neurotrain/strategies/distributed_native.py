"""Folders of ``torch.distributed.checkpoint``, as FSDP writes them where each process saves its own part."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

from neurotrain.storage.tensors import CheckpointError, read_part

METADATA = ".metadata"
_MODELS = ("state_dict.", "model.")
"""What Lightning's strategies put before the names of a task: ModelParallelStrategy, FSDPStrategy."""

_DCP = "torch.distributed.checkpoint"
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
        *(
            torch.int64,
            torch.int32,
            torch.int16,
            torch.int8,
            torch.uint8,
            torch.bool,
            torch.complex64,
            torch.complex128,
        ),
    )
}
_ALLOWED = {
    **dict.fromkeys(
        (
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        ),
        f"{_DCP}.metadata",
    ),
    **dict.fromkeys(("_StorageInfo", "_StoragePrefix"), f"{_DCP}.filesystem"),
    "_get_layout": "torch.serialization",
    "Size": "torch",
    "OrderedDict": "collections",
}
"""Classes of a folder's description, and where they come from."""


def consolidate_distributed(folder: Path) -> dict[str, Tensor]:
    """Put the parts of a task's weights together, in one process, however many wrote them.

    The description of such a folder is a pickle, which torch reads whatever it holds; here it may hold its own few
    classes only, and parts are read as tensors.

    Args:
        folder: with the file ``.metadata``.

    Returns:
        Weights and buffers in main memory, by their names in the task.

    Raises:
        FileNotFoundError: if a file is missing.
        CheckpointError: if the folder holds other objects, no weights, or less than it says.
    """
    told = _description(folder / METADATA)
    entries = {
        name: entry for name, entry in told.state_dict_metadata.items() if isinstance(entry, TensorStorageMetadata)
    }
    prefix = next((prefix for prefix in _MODELS if any(name.startswith(prefix) for name in entries)), None)
    if prefix is None:
        raise CheckpointError(folder, f"holds no weights of a task: no names that begin with {' or '.join(_MODELS)}")
    entries = {name: entry for name, entry in entries.items() if name.startswith(prefix)}
    claimed = sum(math.prod(entry.size) * entry.properties.dtype.itemsize for entry in entries.values())
    stored = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    if claimed > stored:
        raise CheckpointError(folder, f"refused: its tensors claim {claimed} bytes, its files have {stored}")
    return {name.removeprefix(prefix): _whole(folder, told, name, entry) for name, entry in entries.items()}


def _whole(folder: Path, told: Metadata, name: str, entry: TensorStorageMetadata) -> Tensor:
    if sum(math.prod(chunk.sizes) for chunk in entry.chunks) != math.prod(entry.size):
        raise CheckpointError(folder, f"the parts of {name} are not all of it")
    found = torch.empty(entry.size, dtype=entry.properties.dtype)
    for chunk in entry.chunks:
        place = told.storage_data[MetadataIndex(name, chunk.offsets)]
        if Path(place.relative_path).name != place.relative_path or place.transform_descriptors:
            raise CheckpointError(folder, f"a part of {name} lies in {place.relative_path!r}, or is packed")
        with (folder / place.relative_path).open("rb") as file:
            file.seek(place.offset)
            part = read_part(file.read(place.length), folder / place.relative_path)
        if part.shape != chunk.sizes:
            raise CheckpointError(
                folder, f"a part of {name} has the shape {tuple(part.shape)}, not {tuple(chunk.sizes)}"
            )
        found[tuple(slice(start, start + size) for start, size in zip(chunk.offsets, chunk.sizes, strict=True))] = part
    return found


def _description(path: Path) -> Metadata:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            found = _Described(file).load()
    except _Refused as refused:
        raise CheckpointError(path, str(refused)) from None
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(path, f"is no description of a checkpoint, or a damaged one ({error})") from None
    if not isinstance(found, Metadata):
        raise CheckpointError(path, f"holds a {type(found).__name__}, no description of a checkpoint")
    return found


class _Refused(Exception):  # noqa: N818 - told at once
    pass


class _Described(pickle.Unpickler):
    """Takes the classes of a description, dtypes, and paths as text."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as pickle has it
        if _ALLOWED.get(name) == module:
            return super().find_class(module, name)
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module.startswith("pathlib") and name in ("PosixPath", "WindowsPath"):
            return _joined
        raise _Refused(f"refused: it would call {module}.{name} when loaded; only tensors and plain values are read")


def _joined(*parts: str) -> str:
    return "/".join(map(str, parts))
