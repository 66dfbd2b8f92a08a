"""The contract of a data set of volumes in its official layout: cases, their files, what their labels mean."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurotrain.data.datasets.problems import DatasetError, Problem
from neurotrain.data.volumes.labels import LabelMap
from neurotrain.data.volumes.nifti import Geometry, read_geometry, read_image, read_labels

SPLITS = ("train", "test")
# Forms of one scanner's series differ in the last digits of a float32.
_SAME_PLACE = 1e-3


@dataclass(frozen=True, kw_only=True)
class VolumeRecord:
    """One case and its files.

    Attributes:
        id: unique within the data set, stable between runs.
        images: a file for each channel.
        labels: its reference; None where there is none.
        group: cases of one subject share a group and are never split apart; None for a subject of its own.
    """

    id: str
    images: tuple[Path, ...]
    labels: Path | None = None
    group: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, the channels first."""
        return (*self.images, *(() if self.labels is None else (self.labels,)))


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A case as it is on disk, in the canonical frame.

    Attributes:
        image: float32 ``(C, *size)``.
        labels: uint8 codes ``(*size)``; None where they were not asked for.
        geometry: of its files.
    """

    image: Tensor
    labels: Tensor | None
    geometry: Geometry


class VolumeDataset(ABC):
    """Cases of a named data set, read where its archive was unpacked; nothing is touched on disk before the first use.

    Attributes:
        name: of the data set, the ``source`` of its samples.
        channels: names of the images of a case.
        label_map: what its codes mean.
        synthetic: True where the voxels are rendered and no figure may be compared with a published one.
        obtain: how to get the data, the last line of an error about absent files.

    Args:
        root: folder of the layout; ``~`` is the home folder.
    """

    name: str
    channels: tuple[str, ...]
    label_map: LabelMap
    synthetic: bool = False
    obtain: str = ""

    def __init__(self, *, root: Path) -> None:
        """Take the folder; nothing on disk is touched yet."""
        self._root = Path(root).expanduser()
        self._records: dict[str, tuple[VolumeRecord, ...]] | None = None

    @property
    def root(self) -> Path:
        """Folder that holds the layout."""
        return self._root

    def records(self, split: str) -> tuple[VolumeRecord, ...]:
        """Cases of a split, sorted by id.

        Args:
            split: ``train`` or ``test``; no case is in both.

        Returns:
            Cases whose headers were read and fit each other; ``test`` is empty where the layout has none.

        Raises:
            DatasetError: lists every absent, unreadable or mismatched file.
            ValueError: if there is no such split.
        """
        if split not in SPLITS:
            near = difflib.get_close_matches(split, SPLITS, n=1, cutoff=0.0)[0]
            raise ValueError(f"split={split!r}: {self.name} has the splits train and test; nearest: {near!r}")
        if self._records is None:
            self._prepare()
            problems: list[Problem] = []
            found = self._scan(problems)
            if not problems:
                problems += [problem for cases in found.values() for case in cases for problem in check_record(case)]
            if not problems and not found["train"]:
                problems.append(Problem(kind="empty split", path=self.root, detail="no case to train on"))
            if problems:
                hint = self.obtain.replace("<root>", str(self.root))
                raise DatasetError.listing(self.name, problems, hint=hint)
            self._records = {name: tuple(sorted(cases, key=lambda case: case.id)) for name, cases in found.items()}
        return self._records.get(split, ())

    def read(self, record: VolumeRecord, *, labelled: bool = True) -> Volume:
        """Read one case.

        Args:
            record: of this data set, or of a source to predict.
            labelled: whether its reference is read too.

        Returns:
            Image, labels and geometry, in the canonical frame.

        Raises:
            DatasetError: if a file cannot be read, lies elsewhere than the first, or holds an unknown code.
        """
        channels: list[NDArray[np.float32]] = []
        geometry: Geometry | None = None
        for path in record.images:
            image, found = read_image(path)
            geometry = geometry or found
            check_place(path, found, record.images[0], geometry)
            channels.append(image)
        assert geometry is not None, "a case has an image"
        labels = None
        if labelled:
            labels = self._read_labels(record, geometry)
        return Volume(image=torch.from_numpy(np.stack(channels)), labels=labels, geometry=geometry)

    @abstractmethod
    def _scan(self, problems: list[Problem]) -> dict[str, list[VolumeRecord]]:
        """Cases of each split by what is in the folder; what is wrong is added to ``problems``."""

    @abstractmethod
    def find(self, source: str) -> tuple[VolumeRecord, ...]:
        """Cases to predict at ``source``: a folder, a glob or one case, without labels.

        Raises:
            DatasetError: if there is none, or one lacks a channel.
        """

    def _prepare(self) -> None:
        """Bring the folder into being where the data set can do so itself; an archive's folder is taken as it is."""
        return

    def _read_labels(self, record: VolumeRecord, geometry: Geometry) -> Tensor:
        if record.labels is None:
            raise DatasetError.single("missing", record.images[0], "has no labels")
        labels, found = read_labels(record.labels)
        check_place(record.labels, found, record.images[0], geometry)
        unknown = sorted({int(code) for code in np.unique(labels)} - self.label_map.known)
        if unknown:
            detail = f"holds the codes {unknown}; {self.name} has {sorted(self.label_map.known)}"
            raise DatasetError.single("invalid labels", record.labels, detail)
        return torch.from_numpy(labels)


def check_place(path: Path, found: Geometry, first: Path, expected: Geometry) -> None:
    """Refuse a file that does not lie over another one, voxel by voxel.

    Raises:
        DatasetError: says how they differ.
    """
    if found.shape != expected.shape:
        raise DatasetError.single("size mismatch", path, f"has {found.shape} voxels, {first.name} has {expected.shape}")
    away = float(np.abs(np.array(found.affine) - np.array(expected.affine)).max())
    if away > _SAME_PLACE:
        raise DatasetError.single(
            "size mismatch", path, f"lies elsewhere than {first.name}: affines differ by {away:g}"
        )


def check_record(record: VolumeRecord) -> list[Problem]:
    """Read the headers of a case; what is absent, broken or lies elsewhere than its first image."""
    problems: list[Problem] = []
    first: Geometry | None = None
    for path in record.files:
        try:
            found = read_geometry(path)
            first = first or found
            check_place(path, found, record.images[0], first)
        except DatasetError as error:
            problems += error.problems
    return problems


def volume_files(source: str) -> tuple[Path, ...]:
    """NIfTI files at a source, sorted: of a folder (not of its subfolders), of a glob, or one.

    Raises:
        DatasetError: if there is none.
        ValueError: if ``source`` is empty.
    """
    if not source.strip():
        raise ValueError(f"source={source!r}: expected a folder, a glob or one file")
    path = Path(source).expanduser()
    if path.is_dir():
        found: Sequence[Path] = [file for file in path.iterdir() if is_volume(file)]
    elif path.exists():
        found = [path]
    else:
        start = Path(path.anchor)
        marked = any(mark in source for mark in "*?[")
        found = [file for file in start.glob(str(path.relative_to(start))) if is_volume(file)] if marked else []
    if not found:
        raise DatasetError.single("missing", path, f"no .nii or .nii.gz file there (source={source})")
    return tuple(sorted(found))


def is_volume(file: Path) -> bool:
    """Whether there is a file whose name is that of a NIfTI file, and not hidden."""
    return is_volume_name(file.name) and file.is_file()


def is_volume_name(name: str) -> bool:
    """Whether a name is that of a NIfTI file, and not hidden."""
    return not name.startswith(".") and name.lower().endswith((".nii", ".nii.gz"))


def bare(file: Path) -> str:
    """Name of a file without ``.nii`` or ``.nii.gz``.

    Example:
        >>> bare(Path("imagesTr/img0001.nii.gz"))
        'img0001'
    """
    name = file.name[:-3] if file.name.lower().endswith(".gz") else file.name
    return name[:-4] if name.lower().endswith(".nii") else name
