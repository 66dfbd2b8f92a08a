"""The contract of a segmentation dataset in its official layout: records, samples, fingerprint, verification."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode, SegmentationSample
from neurotrain.data.datasets.decoding import image_size, read_binary, read_image
from neurotrain.data.datasets.fingerprint import fingerprint_files
from neurotrain.data.datasets.problems import DatasetError, Problem, VerifyReport

__all__ = ["DatasetError", "Record", "Scan", "SegmentationDataset", "VerifyReport"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image and its files.

    Attributes:
        id: unique within the dataset, stable between runs.
        image: the picture.
        mask: its labels; None where the distribution has none.
        valid: picture of the pixels that count (field of view); None where all do, or where it is computed.
        second: the second human observer's labels.
        group: images of one subject share a group and are never split apart; None for a subject of its own.
    """

    id: str
    image: Path
    mask: Path | None = None
    valid: Path | None = None
    second: Path | None = None
    group: str | None = None


@dataclass(kw_only=True)
class Scan:
    """What a look at the folders of one split found.

    Attributes:
        records: the images, complete or not.
        problems: absent folders, absent files, files without a partner.
    """

    records: list[Record] = field(default_factory=list[Record])
    problems: list[Problem] = field(default_factory=list[Problem])

    def report(self, kind: Literal["missing", "unpaired", "duplicate"], path: Path, detail: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(kind=kind, path=path, detail=detail))


class SegmentationDataset(ABC):
    """Images and labels of a named dataset, read where its archive was unpacked.

    A subclass states the attributes and :meth:`_scan`. Nothing is touched on disk before the first use.

    Attributes:
        name: of the dataset, the ``source`` of its samples.
        mode: how ``mask`` is to be read.
        num_classes: logits K of a network for it: 1 for binary, the number of classes or labels otherwise.
        class_names: K names.
        synthetic: True where the pixels are rendered and no figure may be compared with a published one.
        obtain: how to get the data, the last line of an error about absent files.

    Args:
        root: folder into which the archives were unpacked; ``~`` is the home folder.
    """

    name: str
    mode: SegmentationMode = "binary"
    num_classes: int = 1
    class_names: tuple[str, ...]
    synthetic: bool = False
    obtain: str = ""

    def __init__(self, *, root: Path) -> None:
        """Take the settings; nothing on disk is touched yet."""
        self._root = Path(root).expanduser()
        self._records: dict[str, tuple[Record, ...]] = {}

    @property
    def root(self) -> Path:
        """Folder that holds the layout."""
        return self._root

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits whose labels are there; looks at folders only."""
        return ("train", "test")

    def records(self, split: Literal["train", "test"]) -> tuple[Record, ...]:
        """Images of one split, sorted by id.

        Validated on first use (every file is there, its header is readable, sizes agree), then cached.

        Args:
            split: which part of the dataset.

        Returns:
            At least one record.

        Raises:
            DatasetError: lists every absent, unreadable or mismatched file; or says that the split is empty.
            ValueError: if the dataset has no split of that name.
        """
        return self._validated(split)

    def read(self, record: Record) -> SegmentationSample:
        """Decode one record.

        Args:
            record: one of :meth:`records`.

        Returns:
            ``image`` float32 ``(C, H, W)`` in [0, 1]; ``mask`` int64 ``(H, W)``, or ``(L, H, W)`` for multilabel;
            ``valid`` bool ``(H, W)``, all True where nothing says otherwise; ``id``; ``source``, the dataset's name.

        Raises:
            DatasetError: if a file cannot be decoded, holds an unknown label or another size, or there is no mask.
        """
        if record.mask is None:
            raise DatasetError.single("missing", record.image, "has no labels")
        image, mask = self._read_image(record), self._read_mask(record)
        valid = self._read_valid(record, image)
        sizes = {record.image: image, record.mask: mask, record.valid or record.image: valid}
        if problems := _mismatches({path: _height_width(part) for path, part in sizes.items()}):
            raise DatasetError.listing(f"{self.name}, {record.id!r}", problems)
        return {"image": image, "mask": mask, "valid": valid, "id": record.id, "source": self.name}

    def read_unlabelled(self, record: Record) -> SegmentationSample:
        """Decode the image alone, to predict it.

        Args:
            record: of any image, not only of :meth:`records`.

        Returns:
            As :meth:`read`, but ``mask`` is all zeros whatever the labels are: it is there for the shape, and not to
            be read. A dataset whose ``valid`` comes from a file computes it where the record names none, so that a
            normalisation inside of it sees the statistics of the photograph, not of its black border.

        Raises:
            DatasetError: if a file cannot be decoded or has another size.
        """
        image = self._read_image(record)
        valid = self._read_valid(record, image)
        sizes = {record.image: image, record.valid or record.image: valid}
        if problems := _mismatches({path: _height_width(part) for path, part in sizes.items()}):
            raise DatasetError.listing(f"{self.name}, {record.id!r}", problems)
        labels = (self.num_classes,) if self.mode == "multilabel" else ()
        mask = torch.zeros(*labels, *_height_width(image), dtype=torch.int64)
        return {"image": image, "mask": mask, "valid": valid, "id": record.id, "source": self.name}

    def read_second(self, record: Record) -> Tensor | None:
        """The second human observer's labels.

        Args:
            record: one of :meth:`records`.

        Returns:
            int64 ``(H, W)``, or None where nobody looked twice.

        Raises:
            DatasetError: if the file cannot be decoded or is not binary.
        """
        return None if record.second is None else read_binary(record.second).long()

    def fingerprint(self) -> str:
        """Identity of the data: equal on two machines where every file used is equal.

        BLAKE2b over the relative path, size and content of every file of every split at hand, see
        :func:`~neurotrain.data.datasets.fingerprint.fingerprint_files`.

        Returns:
            32 hexadecimal digits.

        Raises:
            DatasetError: as :meth:`records`.
        """
        self._prepare()
        files = {path for split in self.splits for record in self._validated(split) for path in self._files(record)}
        return fingerprint_files(files, root=self.root)

    def verify(self) -> VerifyReport:
        """Decode every file and collect everything that is wrong: nothing is raised for a bad file.

        Returns:
            Counts for each split and all problems: missing, unpaired or unreadable files, sizes that differ, values
            that are no label, masks without a single foreground pixel, fields of view without a single pixel.
        """
        self._prepare()
        counts: dict[str, int] = {}
        problems: list[Problem] = []
        for split in self.splits:
            scan = self._scan(split)
            counts[split] = len(scan.records)
            problems += scan.problems
            if not scan.records and not scan.problems:
                problems.append(self._empty(split))
            problems += [problem for record in scan.records for problem in self._inspect(record)]
        return VerifyReport(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    @abstractmethod
    def _scan(self, split: str) -> Scan:
        """Look at the folders of ``split``; report what is absent, raise nothing."""

    def _split_names(self) -> tuple[str, ...]:
        return ("train", "test")

    def _prepare(self) -> None:
        """Bring the folder into being where the dataset can do so itself; an archive's folder is taken as it is."""
        return

    def _read_image(self, record: Record) -> Tensor:
        return read_image(record.image)

    def _read_mask(self, record: Record) -> Tensor:
        assert record.mask is not None
        return read_binary(record.mask).long()

    def _read_valid(self, record: Record, image: Tensor) -> Tensor:
        if record.valid is None:
            return torch.ones(image.shape[-2:], dtype=torch.bool)
        return read_binary(record.valid)

    def _files(self, record: Record) -> tuple[Path, ...]:
        """Every file of a record, the image first."""
        others = (record.mask, record.valid, record.second)
        return (record.image, *(path for path in others if path is not None))

    def _validated(self, split: str) -> tuple[Record, ...]:
        if split not in self._records:
            names = self._split_names()
            if split not in names:
                near = difflib.get_close_matches(split, names, n=1, cutoff=0.0)[0]
                raise ValueError(f"split={split!r}: {self.name} has the splits {', '.join(names)}; nearest: {near!r}")
            self._prepare()
            scan = self._scan(split)
            problems = scan.problems or self._header_problems(scan.records)
            if not problems and not scan.records:
                problems = [self._empty(split)]
            if problems:
                raise DatasetError.listing(
                    f"{self.name}, split {split!r}", problems, hint=self.obtain.replace("<root>", str(self.root))
                )
            self._records[split] = tuple(sorted(scan.records, key=lambda record: record.id))
        return self._records[split]

    def _empty(self, split: str) -> Problem:
        return Problem(kind="empty split", path=self.root, detail=f"no image for split {split!r}")

    def _header_problems(self, records: Iterable[Record]) -> list[Problem]:
        problems: list[Problem] = []
        for record in records:
            sizes: dict[Path, tuple[int, int]] = {}
            for path in self._files(record):
                try:
                    sizes[path] = image_size(path)
                except DatasetError as error:
                    problems += error.problems
            problems += _mismatches(sizes) if record.image in sizes else []
        return problems

    def _inspect(self, record: Record) -> list[Problem]:
        problems: list[Problem] = []

        def attempt(reader: Callable[[], Tensor | None]) -> Tensor | None:
            try:
                return reader()
            except DatasetError as error:
                problems.extend(problem for problem in error.problems if problem not in problems)
                return None

        image = attempt(lambda: self._read_image(record))
        parts = [(record.second, attempt(lambda: self.read_second(record)))]
        if record.mask is not None:
            parts.insert(0, (record.mask, attempt(lambda: self._read_mask(record))))
        if image is not None:
            parts.append((record.valid or record.image, attempt(lambda: self._read_valid(record, image))))
        for path, part in parts:
            if path is None or part is None:
                continue
            if image is not None:
                problems += _mismatches({record.image: _height_width(image), path: _height_width(part)})
            if not bool(part.any()):
                problems.append(Problem(kind="empty mask", path=path, detail="not a single pixel is set"))
        return problems


def _height_width(part: Tensor) -> tuple[int, int]:
    return part.shape[-2], part.shape[-1]


def _mismatches(sizes: Mapping[Path, tuple[int, int]]) -> list[Problem]:
    """Problems of the files whose size differs from the first one's (the image's)."""
    if not sizes:
        return []
    (first, (height, width)), *others = sizes.items()
    return [
        Problem(
            kind="size mismatch",
            path=path,
            detail=f"has {size[0]} x {size[1]} pixels (height x width), {first.name} has {height} x {width}",
        )
        for path, size in others
        if size != (height, width)
    ]
