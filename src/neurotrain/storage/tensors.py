"""Tensors and plain values out of a checkpoint, without running anything that it names."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_NAMED = re.compile(r"GLOBAL\s+`{0,2}([\w.]+)")
_UNREADABLE = (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What torch raises at bytes that are no checkpoint of its own."""


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
        CheckpointError: if it would call something when loaded, is packed to unpack to more than it is, is damaged, or
            holds no dictionary.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "weights.pt"
        >>> torch.save({"scale": torch.ones(2)}, path)
        >>> read_checkpoint(path)
        {'scale': tensor([1., 1.])}
    """
    import torch

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _refuse_packed(path)
    try:
        with warnings.catch_warnings():
            # Of a pickle that torch did not write it asks to be told; here it is refused.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zip)
    except pickle.UnpicklingError as error:
        raise CheckpointError(path, _told(error)) from None
    except _UNREADABLE as error:
        raise CheckpointError(path, f"is no checkpoint, or a damaged one ({_line(error)})") from None
    if not isinstance(found, dict):
        raise CheckpointError(path, f"holds a {type(found).__name__}, expected a dictionary")
    return found


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
    """Torch stores its records as they are; one that is packed could unpack to a thousand times the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [info for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(path, f"is no checkpoint, or a damaged one ({_line(error)})") from None
    if packed:
        first = packed[0]
        raise CheckpointError(
            path,
            f"its record {first.filename!r} is compressed, {first.compress_size} bytes to {first.file_size}, which "
            "torch never does: refused as a decompression bomb",
        )


def _told(error: pickle.UnpicklingError) -> str:
    """Torch's message advises to load the file all the same, in six lines."""
    named = _NAMED.search(str(error))
    if named is None:
        return f"refused: only tensors and plain values are read ({_line(error)})"
    return f"refused: it would call {named[1]} when loaded; only tensors and plain values are read"


def _line(error: Exception) -> str:
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return f"{type(error).__name__}: {' '.join(text.split())[:160]}"
