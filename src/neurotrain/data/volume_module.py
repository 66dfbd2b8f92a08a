"""The data module of volumes: patches to train on, whole cases to evaluate and to predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from neurotrain.data.datasets.splits import hold_out, k_fold
from neurotrain.data.engine import Quarantine
from neurotrain.data.fetched import local_source
from neurotrain.data.loader import StartMethod
from neurotrain.data.plan import EpochPlan
from neurotrain.data.planned_module import Chosen, EvaluationSplit, PlannedDataModule, check_held_out
from neurotrain.data.report import staged
from neurotrain.data.transforms import Transform
from neurotrain.data.volume_part import VolumePart
from neurotrain.data.volumes.base import VolumeDataset, VolumeRecord, is_volume_name
from neurotrain.data.volumes.cache import VolumeCache
from neurotrain.data.volumes.preparation import VolumePreparation

Split = Literal["train", "validation", "test", "predict"]


class VolumeDataModule(PlannedDataModule):
    """Loaders over one data set of volumes.

    Training draws patches, in an order and with random numbers that follow from the seed alone; evaluation goes through
    whole cases, one a batch, by id. Each case is prepared once, see :class:`neurotrain.data.volumes.VolumeCache`.
    Validation is carved out of the training split, never out of the test split.

    Args:
        dataset: where cases come from.
        preparation: of each case, before anything is drawn.
        train_transform: cuts a patch out of a prepared case at each visit, such as
            :class:`neurotrain.data.volumes.RandomVolumePatch`, and augments it.
        cache_dir: folder of prepared cases.
        batch_size: patches per step and rank.
        num_workers: processes that load, for each loader.
        samples_per_epoch: patches in an epoch, over all ranks; None: one of each case.
        validation: cases to hold out of the training split.
        folds: number of cross-validation folds, instead of ``validation``.
        fold: which of them is held out, from 0.
        seed: of the held-out cases, the order and every random transform.
        start_method: how workers are started.
        source: what to predict: a folder, a glob or one case, laid out as the data set's, as a path or a URI, see
            :func:`~neurotrain.data.fetched.local_source`; None: the test split.
        quarantine: what to do with training cases that cannot be loaded; None: the first one ends the run.

    Raises:
        ValueError: if the settings contradict each other or the number of cases.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from neurotrain.data.volumes import RandomVolumePatch, SyntheticBtcv, VolumePreparation
        >>> with TemporaryDirectory() as folder:
        ...     module = VolumeDataModule(
        ...         dataset=SyntheticBtcv(root=Path(folder), train=2, test=1, size=(24, 20, 16)),
        ...         preparation=VolumePreparation(window=(-175.0, 250.0), normalize="window"),
        ...         train_transform=RandomVolumePatch(size=(16, 16, 16)),
        ...         cache_dir=Path(folder, "cache"),
        ...         batch_size=2,
        ...     )
        ...     module.setup("fit")
        ...     [tuple(batch["image"].shape) for batch in module.train_dataloader()]
        [(2, 1, 16, 16, 16)]
    """

    def __init__(
        self,
        *,
        dataset: VolumeDataset,
        preparation: VolumePreparation,
        train_transform: Transform,
        cache_dir: Path,
        batch_size: int = 2,
        num_workers: int = 0,
        samples_per_epoch: int | None = None,
        validation: int = 0,
        folds: int | None = None,
        fold: int = 0,
        seed: int = 0,
        start_method: StartMethod = "auto",
        source: str | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=1,
            num_workers=num_workers,
            seed=seed,
            start_method=start_method,
            quarantine=quarantine,
        )
        check_held_out(validation=validation, folds=folds, fold=fold)
        self._dataset = dataset
        self._train_transform = train_transform
        self._samples_per_epoch = samples_per_epoch
        self._validation, self._folds, self._fold = validation, folds, fold
        self._source = source
        self._cache = VolumeCache(folder=cache_dir, dataset=dataset, preparation=preparation)
        self._records: dict[Split, tuple[VolumeRecord, ...]] = {}
        self._asked: set[Split] = set()

    @property
    def dataset(self) -> VolumeDataset:
        """Where cases come from."""
        return self._dataset

    @property
    def title(self) -> str:
        """Name of the data set."""
        return self._dataset.name

    @staged("index")
    def setup(self, stage: str) -> None:
        """Find the files of a stage and check their headers.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            DatasetError: lists what is wrong on disk.
            ValueError: if validation or folds do not fit the number of cases, or the patches do not fill a batch.
        """
        wanted: dict[str, tuple[Split, ...]] = {"fit": ("train", "validation"), "validate": ("validation",)}
        for split in wanted.get(stage, ("test",) if stage == "test" else ("predict",)):
            self._asked.add(split)
            self.records(split)
        if stage == "fit":
            self._check_batch()

    def records(self, split: Split) -> tuple[VolumeRecord, ...]:
        """Cases of a split, sorted by id.

        Args:
            split: ``validation`` is empty where nothing is held out, ``test`` where the layout has no labelled one.

        Returns:
            Cases of :attr:`dataset`.

        Raises:
            DatasetError: lists what is wrong on disk.
            ValueError: if validation or folds do not fit the number of cases.
        """
        if split not in self._records:
            if split == "predict" and self._source is not None:
                # A case may be a folder of files.
                here = local_source(self._source, is_wanted=is_volume_name, owner=self, depth=1)
                self._records["predict"] = self._dataset.find(here)
            elif split in ("test", "predict"):
                self._records[split] = self._dataset.records("test")
            else:
                self._divide(self._dataset.records("train"))
        return self._records[split]

    def training(self) -> Chosen:
        """The training split without what is held out."""
        part = VolumePart(name=self.title, records=self.records("train"), cache=self._cache, whole=False)
        return Chosen(parts=(part,), transforms=(self._train_transform,))

    def evaluation(self, split: EvaluationSplit) -> Chosen:
        """Whole cases of a split by id; without their labels to predict."""
        part = VolumePart(
            name=self.title,
            records=self.records(split),
            cache=self._cache,
            whole=True,
            labelled=split != "predict",
        )
        return Chosen(parts=(part,), transforms=(None,))

    def summary(self) -> dict[str, Any]:
        """As every planned module tells, and whether the voxels are rendered."""
        return {**super().summary(), "synthetic": None if self._source else self._dataset.synthetic}

    def _divide(self, records: tuple[VolumeRecord, ...]) -> None:
        train, held_out = records, ()
        if self._folds is not None:
            train, held_out = k_fold(records, folds=self._folds, fold=self._fold)
        elif self._validation:
            train, held_out = hold_out(records, count=self._validation, seed=self._seed)
        self._records["train"], self._records["validation"] = train, held_out

    def _is_there(self, split: Split) -> bool:
        return split in self._asked if self._asked else super()._is_there(split)

    def _plan(self) -> EpochPlan:
        # Overfitting means the same few batches in each epoch.
        return EpochPlan(
            count=len(self.records("train")),
            samples_per_epoch=self._samples_per_epoch,
            shuffle=not self._overfits(),
            seed=self._seed,
        )
