"""DRIVE: 40 fundus photographs with hand-drawn vessels (Staal et al., 2004)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from neurotrain.data.datasets.base import Record, Scan, SegmentationDataset
from neurotrain.data.datasets.field_of_view import field_of_view
from neurotrain.data.datasets.layout import attach, find


class Drive(SegmentationDataset):
    """Digital Retinal Images for Vessel Extraction: 20 training and 20 test photographs of 584 x 565 pixels.

    The layout, as the archives unpack::

        training/images/21_training.tif    test/images/01_test.tif
        training/1st_manual/21_manual1.gif test/1st_manual/01_manual1.gif
        training/mask/21_training_mask.gif test/mask/01_test_mask.gif
                                           test/2nd_manual/01_manual2.gif

    Published figures use ``1st_manual`` as the truth, inside of ``mask``; ``2nd_manual`` gives the human's own score.
    Some distributions lack ``test/1st_manual``: then only the training split is there. The archive's ``mask`` is
    ``valid``; for a photograph without one, as in prediction, it is computed, see
    :func:`~neurotrain.data.datasets.field_of_view.field_of_view`. The archive's masks take in the dark rim or leave it
    out as they please, so that on its own photographs the standard deviation inside of the computed one is 0.9 to 1.17
    times theirs, and the mean moves by less than 0.06 of it.

    Args:
        root: folder that holds ``training`` and ``test``.

    Reference:
        Staal et al., 2004, doi:10.1109/TMI.2004.825627; https://drive.grand-challenge.org.

    Example:
        >>> Drive(root="data/DRIVE").records("train")
        Traceback (most recent call last):
        ...
        neurotrain.data.datasets.problems.DatasetError: drive, split 'train': 1 problem
          missing (1):
            data/DRIVE/training/images: no such folder; it should hold *_training.tif
        register at https://drive.grand-challenge.org, unpack so that data/DRIVE/training/images exists
    """

    name = "drive"
    class_names = ("vessel",)
    obtain = "register at https://drive.grand-challenge.org, unpack so that <root>/training/images exists"

    @property
    def splits(self) -> tuple[str, ...]:
        """``train``, and ``test`` where its labels are there."""
        return ("train", "test") if (self.root / "test" / "1st_manual").is_dir() else ("train",)

    def _scan(self, split: str) -> Scan:
        kind: Literal["training", "test"] = "training" if split == "train" else "test"
        folder, scan = self.root / kind, Scan()
        images = find(scan, folder / "images", f"{{id}}_{kind}.tif")
        if images and kind == "test" and not (folder / "1st_manual").is_dir():
            detail = "the labels of the test images are not part of this distribution: ask for split 'train' only"
            scan.report("missing", folder / "1st_manual", detail)
            return scan
        masks = attach(scan, images, folder / "1st_manual", "{id}_manual1.gif", what="manual segmentation")
        fields = attach(scan, images, folder / "mask", f"{{id}}_{kind}_mask.gif", what="field of view")
        seconds = attach(
            scan, images, folder / "2nd_manual", "{id}_manual2.gif", what="second segmentation", optional=True
        )
        scan.records = [
            Record(id=key, image=image, mask=masks.get(key), valid=fields.get(key), second=seconds.get(key))
            for key, image in images.items()
        ]
        return scan

    def _read_valid(self, record: Record, image: Tensor) -> Tensor:
        return field_of_view(image) if record.valid is None else super()._read_valid(record, image)
