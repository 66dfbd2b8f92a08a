"""Data modules: from a named dataset to the loaders of training, validation, test and prediction."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from neurotrain.data.datasets.base import Record, SegmentationDataset
from neurotrain.data.datasets.decoding import image_size
from neurotrain.data.datasets.fingerprint import fingerprint_files
from neurotrain.data.datasets.splits import hold_out, k_fold
from neurotrain.data.engine import Quarantine
from neurotrain.data.fetched import local_source
from neurotrain.data.loader import StartMethod
from neurotrain.data.parts import DatasetPart, check_kept
from neurotrain.data.plan import EpochPlan
from neurotrain.data.planned_module import Chosen, EvaluationSplit, PlannedDataModule, check_held_out
from neurotrain.data.prediction import Placement, find_images, is_image_name, laid_back, placement
from neurotrain.data.report import staged
from neurotrain.data.transforms import Transform

Split = Literal["train", "validation", "test", "predict"]
"""``train`` and ``validation`` are disjoint parts of the dataset's training split; ``test`` is its test split;
``predict`` is the images of ``source``, or those of the test split."""


class SegmentationDataModule(PlannedDataModule):
    """Loaders over one segmentation dataset.

    Validation is carved out of the training split, by a count or as one of several folds, never out of the test split;
    without either, everything is trained on and there is no validation. Evaluation goes through the images in the
    order of their ids. It works with a Trainer (``use_distributed_sampler=False``) and alone.

    Args:
        dataset: where records come from.
        train_transform: applied to a prepared sample at each visit in training.
        eval_transform: likewise in validation and test; deterministic.
        prepare: deterministic first step of both, done once for each sample that is kept in memory.
        batch_size: training samples per step and rank.
        eval_batch_size: likewise in evaluation; above 1 the images must have one size.
        num_workers: processes that load, for each loader.
        samples_per_epoch: training samples in an epoch, over all ranks; None: each record once.
        validation: images to hold out of the training split.
        folds: number of cross-validation folds, instead of ``validation``.
        fold: which of them is held out, from 0.
        seed: of the held-out images, the order and every random transform.
        cache_bytes: memory for prepared training and validation samples, shared with forked workers.
        start_method: how workers are started.
        source: what to predict: a folder, a glob or one image, as a path or a URI, see
            :func:`~neurotrain.data.fetched.local_source`, whose pixels are read as the dataset's images are (images of
            different sizes need ``eval_batch_size=1``, or an ``eval_transform`` to one size); None: the images of the
            test split. Labels are not read. No other stage uses it.
        quarantine: what to do with training samples that cannot be loaded; None: the first one ends the run.

    Raises:
        ValueError: if the settings contradict each other or the number of records.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from neurotrain.data.datasets import SyntheticDrive
        >>> from neurotrain.data.transforms import Identity, NormalizeInside, RandomPatch
        >>> with TemporaryDirectory() as folder:
        ...     module = SegmentationDataModule(
        ...         dataset=SyntheticDrive(root=Path(folder), train=2, test=1, size=(64, 64)),
        ...         prepare=NormalizeInside(),
        ...         train_transform=RandomPatch(size=32),
        ...         eval_transform=Identity(),
        ...         batch_size=2,
        ...         samples_per_epoch=4,
        ...     )
        ...     module.setup("fit")
        ...     [tuple(batch["image"].shape) for batch in module.train_dataloader()]
        [(2, 3, 32, 32), (2, 3, 32, 32)]
    """

    def __init__(
        self,
        *,
        dataset: SegmentationDataset,
        train_transform: Transform,
        eval_transform: Transform,
        prepare: Transform | None = None,
        batch_size: int = 8,
        eval_batch_size: int = 1,
        num_workers: int = 0,
        samples_per_epoch: int | None = None,
        validation: int = 0,
        folds: int | None = None,
        fold: int = 0,
        seed: int = 0,
        cache_bytes: int = 2**31,
        start_method: StartMethod = "auto",
        source: str | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
            start_method=start_method,
            quarantine=quarantine,
        )
        check_held_out(validation=validation, folds=folds, fold=fold)
        check_kept(prepare, cache_bytes)
        if not eval_transform.deterministic:
            raise ValueError(
                f"eval_transform={type(eval_transform).__name__} draws random numbers: evaluation must not"
            )
        self._dataset = dataset
        self._train_transform, self._eval_transform = train_transform, eval_transform
        self._prepare, self._cache_bytes = prepare, cache_bytes
        self._samples_per_epoch = samples_per_epoch
        self._validation, self._folds, self._fold = validation, folds, fold
        self._evaluation_steps = [step for step in (prepare, eval_transform) if step is not None]
        self._source = source
        self._placements: dict[tuple[int, ...], Placement] = {}
        self._records: dict[Split, tuple[Record, ...]] = {}
        self._parts: dict[Split, DatasetPart] = {}
        self._fingerprint: str | None = None

    @property
    def dataset(self) -> SegmentationDataset:
        """Where records come from."""
        return self._dataset

    @staged("index")
    def setup(self, stage: str) -> None:
        """Find and check the files of a stage; those of another stage may be absent.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            DatasetError: lists what is wrong on disk.
            ValueError: if validation or folds do not fit the number of records, or the records do not fill a batch.
        """
        if stage in ("fit", "validate"):
            self.records("train")
        if stage == "fit":
            self._check_batch()
        if stage in ("test", "predict"):
            self.records(stage)

    def records(self, split: Split) -> tuple[Record, ...]:
        """Records of a split, sorted by id.

        Args:
            split: ``validation`` is empty where nothing is held out.

        Returns:
            Records of :attr:`dataset`.

        Raises:
            DatasetError: lists what is wrong on disk.
            ValueError: if validation or folds do not fit the number of records.
        """
        if split not in self._records:
            if split == "predict" and self._source is not None:
                here = local_source(self._source, is_wanted=is_image_name, owner=self)
                self._records["predict"] = find_images(here)
            elif split in ("test", "predict"):
                self._records[split] = self._dataset.records("test")
            else:
                self._records["train"], self._records["validation"] = self._divide(self._dataset.records("train"))
        return self._records[split]

    def served_alone(self) -> dict[str, Any]:
        """As of any data module; the seed also where it draws no held-out entries."""
        seed = {} if self._validation else {"seed": self._seed}
        return {**super().served_alone(), "samples_per_epoch": self._samples_per_epoch, **seed}

    @property
    def title(self) -> str:
        """Name of the dataset."""
        return self._dataset.name

    @property
    def has_test_split(self) -> bool:
        """Whether the dataset has a labelled test split."""
        return "test" in self._dataset.splits

    def training(self) -> Chosen:
        """The training split without what is held out."""
        return Chosen(parts=(self._part("train"),), transforms=(self._train_transform,))

    def evaluation(self, split: EvaluationSplit) -> Chosen:
        """The images of a split by id; none where none are held out."""
        return Chosen(parts=(self._part(split),), transforms=(self._eval_transform,))

    def laid_back(self, part: Tensor, record: Record) -> Tensor:
        """Lay what was computed on an evaluated sample over its image as it is on disk.

        Args:
            part: float or bool ``(..., h, w)``, of the size that ``eval_transform`` gave the image.
            record: the image's.

        Returns:
            ``(..., H, W)``: scaled back (floats bilinearly, others by the nearest pixel) or cropped.

        Raises:
            ValueError: if ``eval_transform`` neither scales nor pads but, say, crops the image.
        """
        size, found = image_size(record.image), (part.shape[-2], part.shape[-1])
        if size == found:
            return part
        if (*size, *found) not in self._placements:
            sample = self._dataset.read_unlabelled(record)
            self._placements[*size, *found] = placement(sample, self._evaluation_steps)
        return laid_back(part, size=size, placed=self._placements[*size, *found])

    def summary(self) -> dict[str, Any]:
        """What a run was given, of plain values.

        Returns:
            ``name``, ``fingerprint`` and ``synthetic`` of the dataset, ``counts`` and ``ids`` of each split, training
            samples per epoch, how many of them the last partial batch drops, and counts of what was read. With a
            ``source``, its own and nothing of the dataset, which may not be there: ``synthetic`` is None, for nobody
            says so.

        Raises:
            DatasetError: lists what is wrong on disk.
        """
        if self._source is not None:
            return self._summary_of(self._source)
        splits: tuple[Split, ...] = ("train", "validation", "test")
        ids = {split: [record.id for record in self.records(split)] for split in splits if self._has(split)}
        if self._fingerprint is None:
            self._fingerprint = self._dataset.fingerprint()
        told: dict[str, Any] = {
            "name": self._dataset.name,
            "fingerprint": self._fingerprint,
            "synthetic": self._dataset.synthetic,
            "counts": {split: len(names) for split, names in ids.items()},
            "ids": ids,
        }
        if "train" not in ids:
            return told
        plan = self._plan()
        return {
            **told,
            "samples_per_epoch": len(plan),
            "dropped_per_epoch": len(plan) % self.global_batch,
            "statistics": self.statistics(),
        }

    def state_dict(self) -> dict[str, Any]:
        """What must be equal where training is resumed, of plain values.

        The loader's own state says the same and the position, but Lightning ignores it at the end of an epoch.
        """
        return {"dataset": self._dataset.name, **super().state_dict()}

    def _summary_of(self, source: str) -> dict[str, Any]:
        records = self.records("predict")
        root = Path(os.path.commonpath([record.image.absolute().parent for record in records]))
        return {
            "name": source,
            "fingerprint": fingerprint_files([record.image.absolute() for record in records], root=root),
            "synthetic": None,
            "counts": {"predict": len(records)},
            "ids": {"predict": [record.id for record in records]},
        }

    def _is_there(self, split: Split) -> bool:
        # Who asks for a test split that is not there gets none.
        return split == "test" or (split in self._records if split == "predict" else self._has(split))

    def _has(self, split: Split) -> bool:
        return ("test" if split == "test" else "train") in self._dataset.splits

    def _divide(self, records: tuple[Record, ...]) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
        if self._folds is not None:
            return k_fold(records, folds=self._folds, fold=self._fold)
        if self._validation:
            return hold_out(records, count=self._validation, seed=self._seed)
        return records, ()

    def _part(self, split: Split) -> DatasetPart:
        """Records of a split; what is trained and validated on is kept in memory, one pass needs none."""
        if split not in self._parts:
            self._parts[split] = DatasetPart(
                dataset=self._dataset,
                records=self.records(split),
                prepare=self._prepare,
                cache_bytes=self._cache_bytes if split in ("train", "validation") else 0,
                labelled=split != "predict",
            )
        return self._parts[split]

    def _plan(self) -> EpochPlan:
        # Overfitting means the same few batches in each epoch.
        return EpochPlan(
            count=len(self.records("train")),
            samples_per_epoch=self._samples_per_epoch,
            shuffle=not self._overfits(),
            seed=self._seed,
        )
