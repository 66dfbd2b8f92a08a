"""Any dataset that keeps images and masks of equal names in two folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.data.datasets.base import Record, Scan, SegmentationDataset
from neurotrain.data.datasets.decoding import PixelError, read_image, read_values
from neurotrain.data.datasets.labels import check_classes, labels_of
from neurotrain.data.datasets.layout import attach, find
from neurotrain.data.datasets.problems import DatasetError

_ANY_ID = r".+?"


class ImageMaskFolder(SegmentationDataset):
    """Pairs of image and mask by file name.

    The layout, where ``train`` and ``test`` may be left out (then all images are training)::

        train/images/a.jpg  train/masks/a.png  train/valid/a.png  (only if ``valid`` is set)

    For multilabel, ``masks`` has one subfolder for each of ``class_names``: ``masks/liver/a.png``. Any raster format
    that Pillow decodes will do; the two need not be of the same. A palette picture counts by its indices, unless all of
    its palette is grey.

    Args:
        root: folder that holds ``images`` and ``masks``, or ``train`` and ``test``.
        name: of the dataset, the ``source`` of its samples.
        images: name of the folder of images.
        masks: name of the folder of masks.
        valid: name of the folder of validity masks (two values, the higher one counts), if there is one.
        mode: how masks are to be read.
        num_classes: 1 for binary; classes, background included, for multiclass; labels for multilabel.
        class_names: that many names; ``foreground`` or ``class0``, ``class1`` when not given.
            Needed for multilabel.
        mask_suffix: what follows the image's name in the mask's: ``"_mask"`` for ``a_mask.png``.
        label_map: from stored value to label, for instance ``{255: 1}``; values that it does not name stay. When not
            given, binary and multilabel masks may hold 0 and 255 or 0 and 1.
        ignore_value: stored value of pixels that do not count; they get label 0 and are not ``valid``.
        channels: 3 for RGB, 1 for greyscale.

    Raises:
        ValueError: if mode, number and names of the classes do not fit together.
    """

    def __init__(
        self,
        *,
        root: Path,
        name: str = "folder",
        images: str = "images",
        masks: str = "masks",
        valid: str | None = None,
        mode: SegmentationMode = "binary",
        num_classes: int = 1,
        class_names: tuple[str, ...] | None = None,
        mask_suffix: str = "",
        label_map: Mapping[int, int] | None = None,
        ignore_value: int | None = None,
        channels: Literal[1, 3] = 3,
    ) -> None:
        """Take the settings; nothing on disk is touched yet."""
        super().__init__(root=root)
        check_classes(mode, num_classes, class_names)
        self.name, self.mode, self.num_classes = name, mode, num_classes
        default = ("foreground",) if mode == "binary" else tuple(f"class{number}" for number in range(num_classes))
        self.class_names = default if class_names is None else tuple(class_names)
        self.images, self.masks, self.valid, self.mask_suffix = images, masks, valid, mask_suffix
        self.label_map = None if label_map is None else dict(label_map)
        self.ignore_value = ignore_value
        self._label_files: dict[Path, tuple[Path, ...]] = {}
        self.channels: Literal[1, 3] = channels
        self.obtain = f"expected <root>/{images} and <root>/{masks}, or both in <root>/train and <root>/test"

    @property
    def splits(self) -> tuple[str, ...]:
        """The subfolders ``train`` and ``test`` that are there; ``train`` alone for a flat folder."""
        return tuple(split for split in ("train", "test") if (self.root / split).is_dir()) or ("train",)

    def _scan(self, split: str) -> Scan:
        scan = Scan()
        nested = (self.root / "train").is_dir() or (self.root / "test").is_dir()
        if not nested and split == "test":
            scan.report("missing", self.root / "test", "no such folder: a flat folder has the split 'train' only")
            return scan
        folder = self.root / split if nested else self.root
        images = find(scan, folder / self.images, "{id}{ext}", ids=_ANY_ID)
        template = f"{{id}}{self.mask_suffix}{{ext}}"
        labels = [
            attach(scan, images, masks, template, what=f"mask in {masks.name}", ids=_ANY_ID)
            for masks in self._mask_folders(folder / self.masks)
        ]
        valid: dict[str, Path] = {}
        if self.valid is not None:
            valid = attach(scan, images, folder / self.valid, "{id}{ext}", what="validity mask", ids=_ANY_ID)
        for key, image in images.items():
            files = tuple(found[key] for found in labels if key in found)
            complete = len(files) == len(labels)
            if complete:
                self._label_files[files[0]] = files
            scan.records.append(Record(id=key, image=image, mask=files[0] if complete else None, valid=valid.get(key)))
        return scan

    def _mask_folders(self, masks: Path) -> tuple[Path, ...]:
        return tuple(masks / name for name in self.class_names) if self.mode == "multilabel" else (masks,)

    def _mask_files(self, record: Record) -> tuple[Path, ...]:
        """The mask's file, or one file a label (the record names the first label's)."""
        if record.mask is None:
            return ()
        if record.mask not in self._label_files:
            for split in self.splits:
                self._scan(split)
        if record.mask not in self._label_files:
            raise DatasetError.single("missing", record.mask, f"is no mask of {self.name} ({self.root})")
        return self._label_files[record.mask]

    def _files(self, record: Record) -> tuple[Path, ...]:
        return (record.image, *self._mask_files(record), *(() if record.valid is None else (record.valid,)))

    def _read_image(self, record: Record) -> Tensor:
        return read_image(record.image, channels=self.channels)

    def _read_mask(self, record: Record) -> Tensor:
        labels = [self._labels(path) for path in self._mask_files(record)]
        if self.mode != "multilabel":
            return labels[0]
        if len({label.shape for label in labels}) > 1:
            shapes = ", ".join(f"{label.shape[0]} x {label.shape[1]}" for label in labels)
            detail = f"the masks of its labels have different sizes (height x width): {shapes}"
            raise DatasetError.single("size mismatch", self._mask_files(record)[0], detail)
        return torch.stack(labels)

    def _read_valid(self, record: Record, image: Tensor) -> Tensor:
        valid = super()._read_valid(record, image)
        if self.ignore_value is None:
            return valid
        for path in self._mask_files(record):
            ignored = read_values(path) == self.ignore_value
            if ignored.shape != valid.shape:
                raise DatasetError.single(
                    "size mismatch", path, f"has {tuple(ignored.shape)} pixels, not {tuple(valid.shape)}"
                )
            valid = valid & ~ignored
        return valid

    def _labels(self, path: Path) -> Tensor:
        """int64 ``(H, W)`` labels of one file, checked."""
        try:
            return labels_of(
                read_values(path),
                mode=self.mode,
                num_classes=self.num_classes,
                label_map=self.label_map,
                ignore_value=self.ignore_value,
            )
        except PixelError as error:
            raise DatasetError.single("invalid labels", path, str(error)) from error
