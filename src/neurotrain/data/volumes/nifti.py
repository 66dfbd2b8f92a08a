"""NIfTI files: headers checked before anything is allocated, volumes in a canonical frame, and exactly back.

Axes of an array in the canonical frame run right, anterior, superior (RAS+), as near as the file's own axes come to
them: axes are permuted and mirrored, never interpolated, so the way back is exact.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.datasets.problems import DatasetError

MAX_VOXELS = 2**30
"""Voxels of one file, 1024 cubed: what a header claims beyond that is refused before memory is taken."""

MAX_OFFSET = 2**24
"""Bytes of a file before its voxels: header and extensions."""

_HEADER_BYTES = {348: "Nifti1Header", 540: "Nifti2Header"}
_MOST_CODE = 255
_MOST_DEFLATED = 1032
"""Bytes that one byte of deflate unpacks to at most."""

_FORMS = (
    *("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the voxels of a file lie, and how its axes become canonical ones.

    Attributes:
        shape: voxels along the file's axes.
        affine: from the file's voxel indices to millimetres, 4 rows of 4.
        orientation: for each axis of the file the canonical axis, and 1 or -1 where it is mirrored.
    """

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    orientation: tuple[tuple[int, int], ...]

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along the canonical axes."""
        size = [0, 0, 0]
        for length, (axis, _) in zip(self.shape, self.orientation, strict=True):
            size[axis] = length
        return size[0], size[1], size[2]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres of a voxel along the canonical axes."""
        columns = np.linalg.norm(np.array(self.affine)[:3, :3], axis=0)
        spacing = [0.0, 0.0, 0.0]
        for length, (axis, _) in zip(columns.tolist(), self.orientation, strict=True):
            spacing[axis] = length
        return spacing[0], spacing[1], spacing[2]

    def to_canonical(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Turn an array of the file's axes into one of canonical axes.

        Args:
            volume: ``(*shape)``.

        Returns:
            A view of it.

        Example:
            >>> geometry = Geometry(
            ...     shape=(2, 3, 4), affine=((0, 0, 1.0, 0), (-1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 0, 1.0)),
            ...     orientation=((1, -1), (2, 1), (0, 1)),
            ... )
            >>> volume = np.arange(24).reshape(2, 3, 4)
            >>> geometry.to_canonical(volume).shape
            (4, 2, 3)
            >>> bool((geometry.from_canonical(geometry.to_canonical(volume)) == volume).all())
            True
        """
        mirrored = volume[tuple(slice(None, None, sign) for _, sign in self.orientation)]
        return mirrored.transpose(np.argsort([axis for axis, _ in self.orientation]))

    def from_canonical(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Inverse of :meth:`to_canonical`: a view of the array along the file's axes."""
        moved = volume.transpose([axis for axis, _ in self.orientation])
        return moved[tuple(slice(None, None, sign) for _, sign in self.orientation)]


def read_geometry(path: Path) -> Geometry:
    """Read and check a header; no voxel is read.

    Args:
        path: of a ``.nii`` or ``.nii.gz`` file.

    Returns:
        Where its voxels lie.

    Raises:
        DatasetError: if it is no NIfTI file of one volume of real numbers, claims more than :data:`MAX_VOXELS`, or
            tells no usable position.
    """
    return _geometry(path, _header(path))


def read_image(path: Path) -> tuple[NDArray[np.float32], Geometry]:
    """Read a volume of intensities in the canonical frame.

    Args:
        path: of a ``.nii`` or ``.nii.gz`` file.

    Returns:
        float32 ``(*size)`` with the file's slope and intercept applied, and where it lies.

    Raises:
        DatasetError: as :func:`read_geometry`; if the file ends early, or a voxel is no finite number.
    """
    header = _header(path)
    geometry = _geometry(path, header)
    volume = np.asarray(_voxels(path, header, geometry), dtype=np.float32)
    if not np.isfinite(volume).all():
        count = int((~np.isfinite(volume)).sum())
        raise DatasetError.single("unreadable", path, f"{count} of {volume.size} voxels are no finite number")
    return np.ascontiguousarray(geometry.to_canonical(volume)), geometry


def read_labels(path: Path) -> tuple[NDArray[np.uint8], Geometry]:
    """Read a volume of labels in the canonical frame.

    Args:
        path: of a ``.nii`` or ``.nii.gz`` file; any numeric type, but whole numbers from 0 to 255.

    Returns:
        uint8 ``(*size)``, and where it lies.

    Raises:
        DatasetError: as :func:`read_geometry`; if the file ends early or holds anything else than such labels.
    """
    header = _header(path)
    geometry = _geometry(path, header)
    volume = np.asarray(_voxels(path, header, geometry))
    labels = volume.astype(np.uint8) if np.isfinite(volume).all() else np.zeros_like(volume, np.uint8)
    if not (labels == volume).all():
        wrong = float(volume[labels != volume].flat[0])
        raise DatasetError.single("invalid labels", path, f"holds {wrong}: labels are whole numbers, 0 to {_MOST_CODE}")
    return np.ascontiguousarray(geometry.to_canonical(labels)), geometry


def write_labels(path: Path, labels: NDArray[np.uint8], *, like: Path) -> None:
    """Write labels over another file's voxels: its axes, its affine, both of its forms with their codes, its units.

    Args:
        path: to write, ``.nii`` or ``.nii.gz``.
        labels: uint8 ``(*size)`` in the canonical frame.
        like: file in whose geometry they lie.

    Raises:
        DatasetError: if ``like`` cannot be read.
        ValueError: if the size is another one.
    """
    import nibabel

    source = _header(like)
    geometry = _geometry(like, source)
    if labels.dtype != np.uint8 or labels.shape != geometry.size:
        raise ValueError(f"labels {labels.dtype} {labels.shape} do not lie over {like}: expected uint8 {geometry.size}")
    nifti: Any = nibabel
    two = type(source).__name__ == "Nifti2Header"
    header = (nifti.Nifti2Header if two else nifti.Nifti1Header)()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(geometry.shape)
    for name in _FORMS:
        # Bit by bit: a quaternion that is computed anew out of an affine is rounded.
        header[name] = source[name]
    header["pixdim"][4:] = 1.0
    header.set_xyzt_units(*source.get_xyzt_units())
    voxels = np.ascontiguousarray(geometry.from_canonical(labels))
    # Without an affine of its own the image keeps the header's forms as they are.
    nifti.save((nifti.Nifti2Image if two else nifti.Nifti1Image)(voxels, None, header), path)


def write_volume(path: Path, volume: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write an array along the file's own axes.

    Args:
        path: to write, ``.nii`` or ``.nii.gz``.
        volume: ``(*shape)``, float32, int16 or uint8.
        affine: from voxel indices to millimetres, ``(4, 4)``.
    """
    import nibabel

    nifti: Any = nibabel
    image = nifti.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    nifti.save(image, path)


def _header(path: Path) -> Any:  # noqa: ANN401 - nibabel is untyped
    """The header alone: nibabel's own reader would follow extensions of any length."""
    import nibabel

    try:
        block = _first_bytes(path)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError.single("unreadable", path, f"cannot be read: {error}") from error
    sizes = {int.from_bytes(block[:4], order) for order in ("little", "big")} & _HEADER_BYTES.keys()
    if len(sizes) != 1 or len(block) < min(sizes):
        raise DatasetError.single("unreadable", path, "is no NIfTI file")
    size = sizes.pop()
    try:
        header = getattr(cast("Any", nibabel), _HEADER_BYTES[size])(block[:size], check=True)
    except Exception as error:  # nibabel has no common class for what a broken header makes it raise
        raise DatasetError.single("unreadable", path, f"has a broken header: {error}") from error
    _check(path, header)
    return header


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return file.read(max(_HEADER_BYTES))
    with gzip.open(path) as unpacked:
        return unpacked.read(max(_HEADER_BYTES))


def _check(path: Path, header: Any) -> None:  # noqa: ANN401
    shape = tuple(int(length) for length in header.get_data_shape())
    if len(shape) < 3 or min(shape[:3]) < 1 or any(length != 1 for length in shape[3:]):
        raise DatasetError.single("unreadable", path, f"has the shape {shape}: expected one volume of three axes")
    if math.prod(shape) > MAX_VOXELS:
        raise DatasetError.single("unreadable", path, f"claims {shape} voxels; at most {MAX_VOXELS} are read")
    offset = float(header["vox_offset"])
    if not header.structarr.dtype.itemsize <= offset <= MAX_OFFSET:
        raise DatasetError.single("unreadable", path, f"claims voxels from byte {offset} on")
    kind = header.get_data_dtype().kind
    if kind not in "iuf":
        raise DatasetError.single("unreadable", path, f"holds {header.get_data_dtype()}: expected real numbers")


def _geometry(path: Path, header: Any) -> Geometry:  # noqa: ANN401
    from nibabel.orientations import io_orientation

    affine = np.asarray(header.get_best_affine(), np.float64)
    usable = bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) > 1e-12
    found = io_orientation(affine) if usable else np.full((3, 2), np.nan)
    if not np.isfinite(found).all():
        raise DatasetError.single("unreadable", path, f"tells no usable position of its voxels: {affine.tolist()}")
    shape = tuple(int(length) for length in header.get_data_shape()[:3])
    return Geometry(
        shape=cast("tuple[int, int, int]", shape),
        affine=tuple(tuple(row) for row in affine.tolist()),
        orientation=tuple((int(axis), int(sign)) for axis, sign in found),
    )


def _voxels(path: Path, header: Any, geometry: Geometry) -> Any:  # noqa: ANN401
    from nibabel.arrayproxy import ArrayProxy

    needed = int(header["vox_offset"]) + math.prod(geometry.shape) * header.get_data_dtype().itemsize
    size = path.stat().st_size
    # Nibabel takes the memory before it reads: a short file may not ask for much.
    if needed > size * (_MOST_DEFLATED if path.suffix == ".gz" else 1):
        detail = f"cannot be read: its header promises {needed} bytes, the file of {size} holds fewer"
        raise DatasetError.single("unreadable", path, detail)
    try:
        # Of a compressed file no more is unpacked than the header, which was checked, claims.
        return np.asanyarray(ArrayProxy(str(path), header)).reshape(geometry.shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DatasetError.single("unreadable", path, f"cannot be read: {error}") from error
