"""Pickles of plain values and NumPy byte arrays, read without running anything that they name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np

from neurotrain.data.sources.base import SampleFormatError


class _ByteType:
    """Stands for NumPy's dtype; only that of unsigned bytes is known."""

    def __new__(cls, name: str, *rest: object) -> Any:  # noqa: ANN401 - becomes NumPy's own
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array of type {name!r} is refused, only bytes are expected")
        return _FrozenByteType()


class _FrozenByteType:
    """Takes the state that NumPy's pickles give a dtype, and ignores it."""

    def __setstate__(self, state: object) -> None:
        """Ignore it."""


class _ByteArray:
    """Takes the state of an array: version, shape, type, order, bytes."""

    def __init__(self, subtype: object, shape: object, kind: object) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], object, bool, object]) -> None:
        """Keep the bytes as an array."""
        _, shape, kind, column_major, content = state
        if not isinstance(kind, _FrozenByteType) or not isinstance(content, bytes | str):
            raise pickle.UnpicklingError("an array of anything but bytes is refused")
        # Python 2 wrote bytes as str; the unpickler hands them over in latin1.
        raw = content.encode("latin1") if isinstance(content, str) else content
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if column_major else "C")


class _Subtype:
    """Stands for ``numpy.ndarray`` as a name; it makes nothing."""


_ALLOWED: dict[tuple[str, str], Callable[..., Any] | type] = {
    **{(f"numpy{core}.multiarray", "_reconstruct"): _ByteArray for core in (".core", "._core")},
    ("numpy", "ndarray"): _Subtype,
    ("numpy", "dtype"): _ByteType,
}


def _encoded(text: str, encoding: str) -> bytes:
    """How protocol 2 of Python 3 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is refused")
    return text.encode("latin1")


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:  # noqa: ANN401 - see _ALLOWED
        """Return a stand-in of our own; nothing is imported.

        Raises:
            pickle.UnpicklingError: for every other name.
        """
        if (module_name, global_name) == ("_codecs", "encode"):
            return _encoded
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"names {module_name}.{global_name}, which is refused") from None


def read_plain_pickle(data: bytes, *, uri: str) -> dict[str, Any]:
    """Read a pickled dictionary of texts, numbers, lists and NumPy arrays of bytes.

    Nothing that a pickle can name is imported or called: what these files hold is made by stand-ins of this module.

    Args:
        data: the whole file.
        uri: of it, for messages.

    Returns:
        The dictionary, its keys as text.

    Raises:
        SampleFormatError: if the file holds anything else, or is cut off.

    Example:
        >>> read_plain_pickle(pickle.dumps({b"labels": [3, 1]}), uri="toy")
        {'labels': [3, 1]}
    """
    try:
        found = _PlainUnpickler(BytesIO(data), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise SampleFormatError(f"{uri}: no pickle of plain values ({error})") from error
    if not isinstance(found, dict):
        raise SampleFormatError(f"{uri}: holds a {type(found).__name__}, expected a dictionary")
    return {_text(key): value.value if isinstance(value, _ByteArray) else value for key, value in found.items()}


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
