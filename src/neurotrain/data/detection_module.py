"""A data module for images with annotated objects."""

from __future__ import annotations

from typing import Any

from neurotrain.batch import Category
from neurotrain.data.decoders import Decoder
from neurotrain.data.detection import CocoSource
from neurotrain.data.detection_parts import DetectionPart
from neurotrain.data.engine import Quarantine
from neurotrain.data.loader import StartMethod
from neurotrain.data.parts import Part, Step
from neurotrain.data.pictures import PictureSource
from neurotrain.data.source_modules import SourceDataModule
from neurotrain.data.sources import Source


class DetectionDataModule(SourceDataModule):
    """Loaders over images with annotated objects; batches list what differs in shape, see ``DetectionBatch``.

    Labels are places among the categories of the annotations; all sources must have the same. In evaluation images
    stay as they are stored, for figures and predictions are in their pixels: the network scales them itself.

    Args:
        train: the source to train on.
        decoder: makes a typed sample of an entry.
        train_transform: applied to a prepared sample at each visit in training; None: nothing.
        eval_transform: likewise in evaluation; deterministic; None: nothing.
        prepare: deterministic first step of both, done once for each sample that is kept in memory.
        validation: a source of its own, or the number of images to hold out of ``train``.
        folds: number of cross-validation folds, instead of ``validation``.
        fold: which of them is held out, from 0.
        test: the source to test on.
        batch_size: training images per step and rank.
        eval_batch_size: likewise in evaluation.
        num_workers: processes that load, for each loader.
        samples_per_epoch: training images in an epoch, over all ranks; None: each image once.
        seed: of the held-out images, the order and every random transform.
        cache_bytes: memory for prepared samples of each source, shared with forked workers.
        start_method: how workers are started.
        source: what to predict: a folder, a glob or one image, as a path or a URI, see
            :class:`~neurotrain.data.pictures.PictureSource`; None: the images of the test source. No other stage uses
            it.
        quarantine: what to do with samples that cannot be loaded in training; None: the first one ends the run.

    Raises:
        ValueError: if the settings contradict each other.
        TypeError: if a source is no :class:`~neurotrain.data.detection.CocoSource`.
    """

    accepts = (CocoSource, PictureSource)
    ragged = ("image", "boxes", "labels", "iscrowd", "area", "masks")

    def __init__(
        self,
        *,
        train: Source,
        decoder: Decoder,
        train_transform: Step | None = None,
        eval_transform: Step | None = None,
        prepare: Step | None = None,
        validation: Source | int = 0,
        folds: int | None = None,
        fold: int = 0,
        test: Source | None = None,
        batch_size: int = 4,
        eval_batch_size: int = 4,
        num_workers: int = 0,
        samples_per_epoch: int | None = None,
        seed: int = 0,
        cache_bytes: int = 0,
        start_method: StartMethod = "auto",
        source: str | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        super().__init__(
            train=train,
            decoder=decoder,
            train_transform=train_transform,
            eval_transform=eval_transform,
            prepare=prepare,
            validation=validation,
            folds=folds,
            fold=fold,
            test=test,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            samples_per_epoch=samples_per_epoch,
            seed=seed,
            cache_bytes=cache_bytes,
            start_method=start_method,
            quarantine=quarantine,
            source=source,
        )
        self._categories: tuple[Category, ...] | None = None
        self._categorized_by = ""

    def categories(self) -> tuple[Category, ...] | None:
        """Categories by label; None before any source that knows them was set up."""
        return self._categories

    def _part(self, source: Source, rows: Any) -> Part[Any]:  # noqa: ANN401 - of split_rows
        if isinstance(source, CocoSource):
            self._compare(source)
        return DetectionPart(
            source=source, decoder=self._decoder, prepare=self._prepare, rows=rows, cache_bytes=self._cache_bytes
        )

    def _compare(self, source: CocoSource) -> None:
        """Refuse sources whose labels mean different things.

        Raises:
            ValueError: names the first difference.
        """
        found = source.categories()
        if self._categories is None:
            self._categories, self._categorized_by = found, source.name
        different = sorted(set(found) ^ set(self._categories))
        if different:
            raise ValueError(
                f"the sources {self._categorized_by!r} and {source.name!r} differ in {len(different)} categories, such "
                f"as {different[0].id} {different[0].name!r}: labels would mean different things"
            )
