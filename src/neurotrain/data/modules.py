"""Data modules: from a named dataset to the loaders of training, validation, test and prediction."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from neurotrain.data.datasets.base import Record, SegmentationDataset
from neurotrain.data.datasets.decoding import image_size
from neurotrain.data.datasets.fingerprint import fingerprint_files
from neurotrain.data.datasets.splits import hold_out, k_fold
from neurotrain.data.loader import PlannedLoader, StartMethod
from neurotrain.data.plan import EpochPlan
from neurotrain.data.prediction import LoaderOfPredictions, Placement, find_images, laid_back, placement
from neurotrain.data.samples import PlannedSamples, SampleCache, collate
from neurotrain.data.transforms import Transform

Split = Literal["train", "validation", "test", "predict"]
"""``train`` and ``validation`` are disjoint parts of the dataset's training split; ``test`` is its test split;
``predict`` is the images of ``source``, or those of the test split."""


class SegmentationDataModule(LightningDataModule):
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
        source: what to predict: a folder, a glob or one image, whose pixels are read as the dataset's images are
            (images of different sizes need ``eval_batch_size=1``, or an ``eval_transform`` to one size); None: the
            images of the test split. Labels are not read. No other stage uses it.

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
    ) -> None:
        super().__init__()
        _check_held_out(validation=validation, folds=folds, fold=fold)
        _check_at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        _check_at_least(0, num_workers=num_workers)
        if not eval_transform.deterministic:
            raise ValueError(
                f"eval_transform={type(eval_transform).__name__} draws random numbers: evaluation must not"
            )
        self._dataset = dataset
        self._train_transform, self._eval_transform = train_transform, eval_transform
        self._batch_size, self._eval_batch_size = batch_size, eval_batch_size
        self._num_workers = num_workers
        self._start_method: StartMethod = start_method
        self._samples_per_epoch = samples_per_epoch
        self._validation, self._folds, self._fold = validation, folds, fold
        self._seed = seed
        self._cache = SampleCache(dataset=dataset, prepare=prepare, limit=cache_bytes)
        self._uncached = SampleCache(dataset=dataset, prepare=prepare)
        self._unlabelled = SampleCache(dataset=dataset, prepare=prepare, labelled=False)
        self._evaluation_steps = [step for step in (prepare, eval_transform) if step is not None]
        self._source = source
        self._placements: dict[tuple[int, ...], Placement] = {}
        self._records: dict[Split, tuple[Record, ...]] = {}
        self._fingerprint: str | None = None
        self._loaders: WeakSet[PlannedLoader] = WeakSet()

    @property
    def dataset(self) -> SegmentationDataset:
        """Where records come from."""
        return self._dataset

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
                self._records["predict"] = find_images(self._source)
            elif split in ("test", "predict"):
                self._records[split] = self._dataset.records("test")
            else:
                self._records["train"], self._records["validation"] = self._divide(self._dataset.records("train"))
        return self._records[split]

    def train_dataloader(self) -> PlannedLoader:
        """Shuffled, transformed, without the last partial batch; resumable."""
        records = self.records("train")
        return self._loader(records, self._plan(), self._train_transform, self._cache, train=True)

    def val_dataloader(self) -> PlannedLoader | list[PlannedLoader]:
        """The held-out images by id; an empty list where nothing is held out."""
        return self._eval_loader("validation", self._cache) if self.records("validation") else []

    def test_dataloader(self) -> PlannedLoader:
        """The test images by id."""
        # One pass needs no memory for what was read.
        return self._eval_loader("test", self._uncached)

    def predict_dataloader(self) -> LoaderOfPredictions:
        """The images of ``source``, or of the test split, by id; masks are all zeros."""
        return LoaderOfPredictions(loader=self._eval_loader("predict", self._unlabelled))

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

    def teardown(self, stage: str) -> None:
        """End all workers."""
        for loader in self._loaders:
            loader.close()

    def on_exception(self, exception: BaseException) -> None:
        """End all workers: Lightning leaves those of training alone when validation fails."""
        self.teardown("fit")

    def summary(self) -> dict[str, Any]:
        """What a run was given, of plain values.

        Returns:
            ``name``, ``fingerprint`` and ``synthetic`` of the dataset, ``counts`` and ``ids`` of each split, training
            samples per epoch, and how many of them the last partial batch drops. With a ``source``, its own and
            nothing of the dataset, which may not be there: ``synthetic`` is None, for nobody says so.

        Raises:
            DatasetError: lists what is wrong on disk.
        """
        if self._source is not None:
            return self._summary_of(self._source)
        splits: tuple[Split, ...] = ("train", "validation", "test")
        ids = {split: [record.id for record in self.records(split)] for split in splits if self._has(split)}
        if self._fingerprint is None:
            self._fingerprint = self._dataset.fingerprint()
        plan = self._plan()
        return {
            "name": self._dataset.name,
            "fingerprint": self._fingerprint,
            "synthetic": self._dataset.synthetic,
            "counts": {split: len(names) for split, names in ids.items()},
            "ids": ids,
            "samples_per_epoch": len(plan),
            "dropped_per_epoch": len(plan) % self._global_batch(),
        }

    def state_dict(self) -> dict[str, Any]:
        """What must be equal where training is resumed, of plain values.

        The loader's own state says the same and the position, but Lightning ignores it at the end of an epoch.
        """
        return {
            "dataset": self._dataset.name,
            "train": _digest(self.records("train")),
            "validation": _digest(self.records("validation")),
            "plan": self._plan().fingerprint(),
            "global_batch": self._global_batch(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Refuse to train on with other data.

        Args:
            state_dict: of the run that is resumed; evaluation may use a checkpoint on any data.

        Raises:
            ValueError: names what differs.
        """
        if self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        for name, value in self.state_dict().items():
            if state_dict[name] != value:
                raise ValueError(
                    f"cannot resume: the checkpoint was trained with {name}={state_dict[name]!r}, "
                    f"this run has {name}={value!r}"
                )

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

    def _has(self, split: Split) -> bool:
        return ("test" if split == "test" else "train") in self._dataset.splits

    def _divide(self, records: tuple[Record, ...]) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
        if self._folds is not None:
            return k_fold(records, folds=self._folds, fold=self._fold)
        if self._validation:
            return hold_out(records, count=self._validation, seed=self._seed)
        return records, ()

    def _plan(self) -> EpochPlan:
        # Overfitting means the same few batches in each epoch.
        trainer = self.trainer
        overfit = trainer is not None and trainer.overfit_batches > 0  # pyright: ignore[reportAttributeAccessIssue]
        return EpochPlan(
            length=len(self.records("train")),
            samples_per_epoch=self._samples_per_epoch,
            shuffle=not overfit,
            seed=self._seed,
        )

    def _check_batch(self) -> None:
        plan, needed = self._plan(), self._global_batch()
        if len(plan) < needed:
            raise ValueError(
                f"batch_size={self._batch_size} on {self._world_size()} rank(s) needs {needed} samples per epoch, "
                f"there are {len(plan)}: raise samples_per_epoch or lower batch_size"
            )

    def _eval_loader(self, split: Split, cache: SampleCache) -> PlannedLoader:
        records = self.records(split)
        plan = EpochPlan(length=len(records), shuffle=False, seed=self._seed)
        return self._loader(records, plan, self._eval_transform, cache, train=False)

    def _loader(
        self, records: Sequence[Record], plan: EpochPlan, transform: Transform, cache: SampleCache, *, train: bool
    ) -> PlannedLoader:
        if self._num_workers:
            cache.fill(records)  # before workers are forked: they share what is there and keep nothing
        trainer = self.trainer
        loader = PlannedLoader(
            dataset=PlannedSamples(
                records=records, cache=cache, transform=transform, plan=plan, source=self._dataset.name
            ),
            plan=plan,
            batch_size=self._batch_size if train else self._eval_batch_size,
            collate=collate,
            drop_last=train,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=self._world_size(),
            num_workers=self._num_workers,
            persistent_workers=train and self._num_workers > 0,
            start_method=self._start_method,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
        )
        self._loaders.add(loader)
        return loader

    def _world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    def _global_batch(self) -> int:
        return self._batch_size * self._world_size()


def _check_at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise ValueError(f"{name}={number}: must be at least {least}")


def _check_held_out(*, validation: int, folds: int | None, fold: int) -> None:
    _check_at_least(0, validation=validation)
    if validation and folds is not None:
        raise ValueError(f"validation={validation} and folds={folds}: give one of them")
    if fold and folds is None:
        raise ValueError(f"fold={fold} has no effect without folds")


def _digest(records: Sequence[Record]) -> str:
    return hashlib.blake2b("\n".join(record.id for record in records).encode(), digest_size=8).hexdigest()
