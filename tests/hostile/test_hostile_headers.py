"""Headers that promise more than there is memory, or nonsense: refused by name and number before memory is taken."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from neurotrain.data.datasets import DatasetError
from neurotrain.data.datasets.decoding import GZIP_LIMIT, image_size, read_image
from neurotrain.data.decoders import decode_mask, decode_npy, decode_rgb, decode_safetensors
from neurotrain.data.index.headers import HeaderError, read_header
from neurotrain.data.labelled.idx import read_idx
from neurotrain.data.sources import SampleFormatError
from neurotrain.data.volumes.nifti import read_geometry, read_labels
from neurotrain.data.volumes.nifti import read_image as read_volume

MOST = 2 * GZIP_LIMIT + 2**24
"""Bytes that a refusal may take: a file below its own limit, unpacked and copied once."""

SIDE = 60_000


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Nothing of the size that a header promises is allocated (NumPy and the interpreter tell tracemalloc)."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST


def png(width: int, height: int, *, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body or zlib.compress(bytes(900)))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def jpeg(side: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def gif(side: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "GIF")
    data = bytearray(stream.getvalue())
    data[6:10] = struct.pack("<HH", side, side)
    return bytes(data)


def webp(side: int) -> bytes:
    """The header of a lossy picture, 14 bits a side, in a canvas of 24 bits a side."""
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + 2 * (side - 1).to_bytes(3, "little")
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "WEBP")
    body = canvas + stream.getvalue()[12:]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff(side: int) -> bytes:
    entries = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 16)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + directory + struct.pack("<I", 0)


PICTURES: dict[str, tuple[bytes, str]] = {
    "png": (png(SIDE, SIDE), "60000 x 60000 pixels|3600000000 pixels"),
    "png of the largest sides": (png(2**31 - 1, 2**31 - 1), "pixels|cannot be decoded"),
    "png one pixel high": (png(2**31 - 1, 1), "pixels"),
    "jpeg": (jpeg(SIDE), "60000 x 60000 pixels|3600000000 pixels"),
    "gif": (gif(SIDE), "60000 x 60000 pixels|3600000000 pixels"),
    "webp": (webp(SIDE), "cannot be decoded|pixels"),
    "tiff": (tiff(SIDE), "60000 x 60000 pixels|3600000000 pixels"),
    "ppm": (b"P6 60000 60000 255\n" + bytes(100), "60000 x 60000 pixels|3600000000 pixels"),
    "bmp": (
        b"BM" + struct.pack("<IHHI", 200, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, *[0] * 6)
        + bytes(100),
        "60000 x 60000 pixels|3600000000 pixels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("decode", [decode_rgb, decode_mask])
def test_pictures(name: str, decode: Callable[..., object]) -> None:
    data, reason = PICTURES[name]
    assert len(data) < 1024
    with pytest.raises(SampleFormatError, match=rf"canary\.img: .*({reason})"):
        decode(data, uri="canary.img")


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_a_data_set(name: str, tmp_path: Path) -> None:
    data, reason = PICTURES[name]
    path = tmp_path / "canary.img"
    path.write_bytes(data)
    for read in (read_image, image_size):
        with pytest.raises(DatasetError, match=rf"canary\.img.*({reason})"):
            read(path)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_an_index(name: str) -> None:
    data, _ = PICTURES[name]
    with pytest.raises(HeaderError):
        read_header(lambda count: data if count is None else data[:count])


def test_a_packed_picture_that_never_ends(tmp_path: Path) -> None:
    path = tmp_path / "canary.ppm.gz"
    path.write_bytes(gzip.compress(b"P6 9000 9000 255\n" + bytes(GZIP_LIMIT + 2**20), compresslevel=9))
    with pytest.raises(DatasetError, match=r"canary\.ppm\.gz.*unpacks to more than 64 MiB"):
        read_image(path)


def npy(header: str, body: bytes = b"", version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + body


def shaped(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


ARRAYS: dict[str, tuple[bytes, str]] = {
    "giant": (npy(shaped("(1000000, 1000000, 1000)")), "its header promises the shape"),
    "negative sides": (npy(shaped("(-2, -3)"), bytes(24)), "shape"),
    "one negative side": (npy(shaped("(-1, 6)"), bytes(24)), "shape|promises"),
    "nothing, endlessly": (npy(shaped("(0, 10000000000000000000000000)")), "the shape"),
    "objects": (npy(shaped("(1,)", "'|O'"), b"cos\nsystem\n(S'true'\ntR."), "holds object, expected numbers"),
    "records of objects": (npy(shaped("(1,)", "[('a', '|O')]"), b"x" * 8), "expected numbers"),
    "text": (npy(shaped("(1,)", "'<U1000000'")), "expected numbers"),
    "a call for a shape": (npy(shaped("(__import__('os').system('true'),)")), "no npy file"),
    "a header of megabytes": (npy(shaped("(" + "1," * 200_000 + ")"), version=2), "no npy file|shape"),
    "a header that nests": (npy(shaped("(" * 3000 + ")" * 3000)), "no npy file"),
    "a header of signs": (npy(shaped("(" + "-" * 9000 + "1,)")), "no npy file|shape|promises"),
    "a header longer than the file": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{", "no npy file"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name: str) -> None:
    data, reason = ARRAYS[name]
    with pytest.raises(SampleFormatError, match=rf"canary\.npy: .*({reason})"):
        decode_npy(data, uri="canary.npy")


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 66) + b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}'[:66] + bytes(4),
        struct.pack("<Q", 8) + b"[[[[[[[[",
    ],
)
def test_safetensors(data: bytes) -> None:
    with pytest.raises(SampleFormatError, match="canary: "):
        decode_safetensors(data, uri="canary")


def nifti(dim: list[int], *, datatype: int = 16, offset: float = 352.0) -> bytes:
    made = nibabel.Nifti1Header()
    made.set_sform(np.eye(4), 1)
    made["dim"], made["datatype"], made["vox_offset"] = dim, datatype, offset
    made["bitpix"] = {16: 32, 64: 64}[datatype]
    return made.binaryblock + bytes(4)


VOLUMES: dict[str, tuple[bytes, str]] = {
    "terabytes": (nifti([3, 32767, 32767, 32767, 1, 1, 1, 1], datatype=64), "at most 1073741824 are read"),
    "as much as is allowed": (nifti([3, 1024, 1024, 1024, 1, 1, 1, 1]), "promises 4294967648 bytes, the file of"),
    "negative": (nifti([3, 64, -64, 64, 1, 1, 1, 1]), "expected one volume"),
    "two negatives": (nifti([3, -64, -64, 64, 1, 1, 1, 1]), "expected one volume"),
    "voxels far away": (nifti([3, 4, 4, 4, 1, 1, 1, 1], offset=1e12), "claims voxels from byte"),
    "voxels before the file": (nifti([3, 4, 4, 4, 1, 1, 1, 1], offset=-8.0), "broken header|claims voxels"),
    "voxels nowhere": (nifti([3, 4, 4, 4, 1, 1, 1, 1], offset=float("nan")), "broken|claims"),
    "many times": (nifti([7, 4, 4, 4, 32767, 32767, 1, 1]), "expected one volume"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", VOLUMES)
def test_volumes(name: str, packed: bool, tmp_path: Path) -> None:
    data, reason = VOLUMES[name]
    path = tmp_path / ("canary.nii.gz" if packed else "canary.nii")
    path.write_bytes(gzip.compress(data) if packed else data)
    for read in (read_volume, read_labels):
        with pytest.raises(DatasetError, match=rf"canary\.nii.*({reason})"):
            read(path)


def test_a_packed_volume_whose_header_never_comes(tmp_path: Path) -> None:
    path = tmp_path / "canary.nii.gz"
    path.write_bytes(gzip.compress(bytes(64 * 2**20), compresslevel=1))
    with pytest.raises(DatasetError, match=r"canary\.nii\.gz.*no NIfTI file"):
        read_geometry(path)


IDX: dict[str, tuple[bytes, str]] = {
    "giant": (bytes([0, 0, 8, 3]) + struct.pack(">III", *[2**32 - 1] * 3), "at most 1048576 are read"),
    "packed giant": (
        gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">III", 60_000, 28, 28) + bytes(2**24)), "at most 1048576"
    ),
    "goes on packed": (
        gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 2, 2) + bytes(2**26), 1), "the file has more than 8"
    ),
    "other axes": (bytes([0, 0, 8, 255]) + bytes(1020), "an idx file of bytes with 3 axes"),
}  # fmt: skip


@pytest.mark.parametrize("name", IDX)
def test_digits(name: str) -> None:
    data, reason = IDX[name]
    with pytest.raises(SampleFormatError, match=rf"canary: .*{reason}"):
        read_idx(data, uri="canary", dimensions=3, max_bytes=2**20)
