"""ISIC challenges of 2016 to 2018, task 1: the outline of a skin lesion in a dermoscopic image."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from neurotrain.data.datasets.base import Record, Scan, SegmentationDataset
from neurotrain.data.datasets.layout import attach, find

FOLDERS: dict[int, dict[str, tuple[str, str]]] = {
    2016: {
        "train": ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth"),
        "test": ("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"),
    },
    2017: {
        "train": ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
        "validation": ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
        "test": ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
    },
    2018: {
        "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
        "validation": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
        "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
    },
}
"""Folder of the images and of the masks, for each year and split, as the official archives unpack."""


class Isic(SegmentationDataset):
    """International Skin Imaging Collaboration, lesion segmentation; the name is ``isic2016`` and so on.

    Images are ``ISIC_0000000.jpg``, masks ``ISIC_0000000_Segmentation.png`` (2016) or ``..._segmentation.png``;
    superpixels, tables and licence texts that lie beside them are left alone. 2016 has no validation split.

    Args:
        root: folder that holds the unpacked archives' folders, see :data:`FOLDERS`.
        year: of the challenge.

    Raises:
        ValueError: if there was no such challenge.

    Reference:
        Gutman et al., 2016 (arXiv:1605.01397); Codella et al., 2017 (arXiv:1710.05006) and 2019 (arXiv:1902.03368);
        https://challenge.isic-archive.com/data/.
    """

    class_names = ("lesion",)

    def __init__(self, *, root: Path, year: Literal[2016, 2017, 2018] = 2018) -> None:
        """Take the settings; nothing on disk is touched yet."""
        super().__init__(root=root)
        if year not in FOLDERS:
            near = min(FOLDERS, key=lambda known: abs(known - year))
            raise ValueError(f"year={year!r}: task 1 was held in {', '.join(map(str, FOLDERS))}; nearest: {near}")
        self.year = year
        self.name = f"isic{year}"
        first = FOLDERS[year]["train"][0]
        self.obtain = (
            f"download from https://challenge.isic-archive.com/data/#{year}, unpack so that <root>/{first} exists"
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """``train``, and the others whose masks are there."""
        folders = FOLDERS[self.year]
        return tuple(split for split in folders if split == "train" or (self.root / folders[split][1]).is_dir())

    def records(self, split: Literal["train", "validation", "test"]) -> tuple[Record, ...]:
        """As the base's :meth:`~neurotrain.data.datasets.base.SegmentationDataset.records`, with ``validation`` too."""
        return self._validated(split)

    def _split_names(self) -> tuple[str, ...]:
        return tuple(FOLDERS[self.year])

    def _scan(self, split: str) -> Scan:
        image_folder, mask_folder = FOLDERS[self.year][split]
        scan, name = Scan(), r"ISIC_\d+"
        images = find(scan, self.root / image_folder, "{id}.jpg", ids=name)
        suffix = "Segmentation" if self.year == 2016 else "segmentation"
        masks = attach(scan, images, self.root / mask_folder, f"{{id}}_{suffix}.png", what="lesion mask", ids=name)
        scan.records = [Record(id=key, image=image, mask=masks.get(key)) for key, image in images.items()]
        return scan
