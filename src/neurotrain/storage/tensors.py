"""Tensors and plain values out of a checkpoint, without running anything that it names."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurotrain.documents import check_tree

if TYPE_CHECKING:
    from torch import Tensor

_NAMED = re.compile(r"GLOBAL\s+`{0,2}([\w.]+)")
_UNREADABLE = (
    *(RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, MemoryError),
    OverflowError,
)
"""What torch raises at bytes that are no checkpoint of its own, or that ask for more memory than there is."""

_MOST_REPEATED = 1_000_000
"""Values that a checkpoint may repeat by naming one container more than once."""

_SPREAD, _SMALL = 4, 2**26
"""Tensors may be this many times the file, and this many bytes more: tied ones are saved once."""


class CheckpointError(ValueError):
    """A checkpoint is refused: it is damaged, or more than tensors and plain values.

    Args:
        path: of the file.
        reason: why, in one line.
    """

    def __init__(self, path: Path, reason: str) -> None:
        """Keep both, so that the error survives pickling."""
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        """File and reason in one line."""
        return f"{self.path}: {self.reason}"


def read_checkpoint(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read a file of ``torch.save`` that holds a dictionary of tensors and plain values.

    Args:
        path: of the file.
        mapped: leave the tensors' bytes on the disk until they are used: cheap where only names are wanted.

    Returns:
        The dictionary, tensors on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it would call something when loaded, is packed or written to become more than it is, is
            damaged, or holds no dictionary.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "weights.pt"
        >>> torch.save({"scale": torch.ones(2)}, path)
        >>> read_checkpoint(path)
        {'scale': tensor([1., 1.])}
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _refuse_packed(path)
    found = _load(path, path, mapped=mapped and is_zip)
    if not isinstance(found, dict):
        raise CheckpointError(path, f"holds a {type(found).__name__}, expected a dictionary")
    _refuse_inflated(found, path)
    return found


def read_part(data: bytes, path: Path) -> Tensor:
    """Read one tensor that ``torch.save`` wrote into a larger file.

    Args:
        data: the tensor's own bytes.
        path: of the file, for messages.

    Returns:
        The tensor, on the CPU.

    Raises:
        CheckpointError: if it is damaged, or anything but a tensor.
    """
    from torch import Tensor

    found = _load(io.BytesIO(data), path)
    if not isinstance(found, Tensor):
        raise CheckpointError(path, f"a part of it is a {type(found).__name__}, expected a tensor")
    return found


def _load(source: Path | io.BytesIO, path: Path, *, mapped: bool = False) -> Any:  # noqa: ANN401 - tensors and plain values
    import torch

    try:
        with warnings.catch_warnings():
            # Of a pickle that torch did not write it asks to be told; here it is refused.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(path, _told(error)) from None
    except _UNREADABLE as error:
        raise CheckpointError(path, f"is no checkpoint, or a damaged one ({_line(error)})") from None


def read_state(path: Path) -> dict[str, Any]:
    """Read the ``state_dict`` of a run's checkpoint.

    Args:
        path: of the file.

    Returns:
        Names and tensors.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: as :func:`read_checkpoint`; if the file holds no ``state_dict``.
    """
    return state_of(read_checkpoint(path), path)


def state_of(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The ``state_dict`` of a checkpoint that was read.

    Raises:
        CheckpointError: if it holds none.
    """
    found = checkpoint.get("state_dict")
    if not isinstance(found, dict):
        raise CheckpointError(path, "holds no state_dict: a checkpoint of a run is expected")
    return found


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Args:
        path: of the file.

    Returns:
        Names and tensors, on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it is damaged, or none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(path, f"is no safetensors file, or a damaged one ({_line(error)})") from None


def check_checkpoint(path: Path) -> None:
    """Refuse a checkpoint that another library is about to load; a folder and what is not there are left to it.

    Raises:
        CheckpointError: as :func:`read_checkpoint`.
    """
    if path.is_file():
        read_checkpoint(path, mapped=True)


def _refuse_packed(path: Path) -> None:
    """Torch stores its records as they are, each once; packed, or over each other, they are far more than the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(path, f"is no checkpoint, or a damaged one ({_line(error)})") from None
    packed = [info for info in records if info.compress_type != zipfile.ZIP_STORED]
    total, size = sum(info.file_size for info in records), path.stat().st_size
    if total > size and not packed:
        raise CheckpointError(path, f"its records claim {total} bytes, the file has {size}: refused as a bomb")
    if packed:
        first = packed[0]
        raise CheckpointError(
            path,
            f"its record {first.filename!r} is compressed, {first.compress_size} bytes to {first.file_size}, which "
            "torch never does: refused as a decompression bomb",
        )


def _refuse_inflated(found: dict[str, Any], path: Path) -> None:
    """A kilobyte may name one list in another, over and over, or spread one number to a tensor of terabytes."""
    import torch

    held: dict[int, int] = {}

    def parts(node: Any) -> list[Any]:  # noqa: ANN401 - what a checkpoint holds
        if isinstance(node, torch.Tensor):
            held[id(node)] = node.numel() * node.element_size() if node.device.type != "meta" else 0
            return []
        if isinstance(node, bytearray):
            held[id(node)] = len(node)
            return []
        values = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple | set) else ()
        return [value for value in values if isinstance(value, dict | list | tuple | set | bytearray | torch.Tensor)]

    def refused(reason: str, node: object) -> CheckpointError:
        return CheckpointError(path, f"refused: a {type(node).__name__} in it {reason}")

    check_tree(found, parts=parts, most_repeated=_MOST_REPEATED, refused=refused)
    total, size = sum(held.values()), path.stat().st_size
    if total > _SPREAD * size + _SMALL:
        raise CheckpointError(path, f"refused: its tensors claim {total} bytes, the file has {size}")


def _told(error: pickle.UnpicklingError) -> str:
    """Torch's message advises to load the file all the same, in six lines."""
    named = _NAMED.search(str(error))
    if named is None:
        return f"refused: only tensors and plain values are read ({_line(error)})"
    return f"refused: it would call {named[1]} when loaded; only tensors and plain values are read"


def _line(error: Exception) -> str:
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return f"{type(error).__name__}: {' '.join(text.split())[:160]}"
