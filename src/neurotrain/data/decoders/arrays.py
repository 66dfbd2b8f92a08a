"""Arrays: npy and safetensors, neither of which can run code here."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurotrain.batch import ArraySample
from neurotrain.data.decoders.base import Decoder, bytes_of, field_uri
from neurotrain.data.sources.base import RawSample, SampleFormatError

_NPY = b"\x93NUMPY"
_NUMERIC = "biufc"


class ArrayDecoder(Decoder[ArraySample]):
    """Decodes a stored array: a volume, a latent, an embedding.

    Args:
        field: that holds it.
        tensor: name of the tensor in a safetensors file; None: the only one there is. npy files have no names.
    """

    def __init__(self, *, field: str = "image", tensor: str | None = None) -> None:
        self.field = field
        self.tensor = tensor

    def __call__(self, raw: RawSample, generator: torch.Generator) -> ArraySample:
        """Decode one array.

        Returns:
            ``array`` of the stored shape and type, ``id`` and ``source``.

        Raises:
            SampleFormatError: if it is neither, truncated, holds objects, or has not the tensor.
        """
        data, uri = bytes_of(raw, self.field), field_uri(raw, self.field)
        if data[:6] == _NPY:
            array = torch.from_numpy(decode_npy(data, uri=uri))
        else:
            array = decode_safetensors(data, uri=uri, name=self.tensor)
        return {"array": array, "id": raw.id, "source": raw.source}


def decode_npy(data: bytes, *, uri: str) -> NDArray[Any]:
    """Decode a ``.npy`` file of numbers.

    Args:
        data: the whole file.
        uri: of it, for messages.

    Returns:
        Its array, in the machine's byte order, writable.

    Raises:
        SampleFormatError: if it is none, holds objects or text, or has not the bytes that its header promises.

    Example:
        >>> stream = BytesIO()
        >>> np.save(stream, np.arange(3, dtype=np.int16))
        >>> decode_npy(stream.getvalue(), uri="a.npy")
        array([0, 1, 2], dtype=int16)
    """
    stream = BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, EOFError, SyntaxError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        # The header is an expression: one that nests makes Python's parser give up with either of the last two.
        raise SampleFormatError(f"{uri}: is no npy file ({type(error).__name__}: {error})") from error
    if dtype.kind not in _NUMERIC:
        raise SampleFormatError(f"{uri}: holds {dtype}, expected numbers")
    if not all(0 <= side <= len(data) for side in shape):
        raise SampleFormatError(f"{uri}: its header promises the shape {shape} out of {len(data)} bytes")
    start, needed = stream.tell(), math.prod(shape) * dtype.itemsize
    # Before anything is allocated: a header may promise any shape.
    if len(data) - start != needed:
        raise SampleFormatError(f"{uri}: has {len(data) - start} bytes of numbers, its header promises {needed}")
    flat = np.frombuffer(data, dtype, offset=start)
    array = flat.reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), order="C")


def decode_safetensors(data: bytes, *, uri: str, name: str | None = None) -> torch.Tensor:
    """Decode one tensor of a safetensors file.

    Args:
        data: the whole file.
        uri: of it, for messages.
        name: of the tensor; None: the only one.

    Returns:
        The tensor.

    Raises:
        SampleFormatError: if it is no such file, or has not the tensor.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise SampleFormatError(f"{uri}: is neither npy nor safetensors ({error})") from error
    if name is None and len(tensors) == 1:
        return next(iter(tensors.values()))
    if name is None or name not in tensors:
        known = ", ".join(map(repr, sorted(tensors))) or "nothing"
        raise SampleFormatError(f"{uri}: tensor={name!r}: the file holds {known}")
    return tensors[name]
