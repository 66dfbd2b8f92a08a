"""CHASE_DB1: fundus photographs of both eyes of 14 children (Fraz et al., 2012)."""

from __future__ import annotations

from torch import Tensor

from neurotrain.data.datasets.base import Record, Scan, SegmentationDataset
from neurotrain.data.datasets.field_of_view import field_of_view
from neurotrain.data.datasets.layout import attach, find

LAST_TRAINING_CHILD = 10


class ChaseDb1(SegmentationDataset):
    """Child Heart and Health Study in England: 28 photographs of 960 x 999 pixels, labelled by two observers.

    The layout is flat, as the archive unpacks::

        Image_01L.jpg  Image_01L_1stHO.png  Image_01L_2ndHO.png

    There is no official split. The customary one is taken: the first 20 images (children 1 to 10) are training, the
    last 8 (children 11 to 14) test. Both eyes of a child share a group. ``valid`` is computed, see
    :func:`~neurotrain.data.datasets.field_of_view.field_of_view`: the archive has no field of view.

    Args:
        root: folder that holds the images.

    Reference:
        Fraz et al., 2012, doi:10.1109/TBME.2012.2205687.
    """

    name = "chase_db1"
    class_names = ("vessel",)
    obtain = (
        "download CHASEDB1.zip from https://researchdata.kingston.ac.uk/96/, unpack so that <root>/Image_01L.jpg exists"
    )

    def _scan(self, split: str) -> Scan:
        scan, eye = Scan(), r"\d+[LR]"
        images = find(scan, self.root, "Image_{id}.jpg", ids=eye)
        masks = attach(scan, images, self.root, "Image_{id}_1stHO.png", what="first observer's labels", ids=eye)
        seconds = attach(
            scan, images, self.root, "Image_{id}_2ndHO.png", what="second observer's labels", ids=eye, optional=True
        )
        scan.records = [
            Record(id=key, image=image, mask=masks.get(key), second=seconds.get(key), group=key[:-1])
            for key, image in images.items()
            if (int(key[:-1]) <= LAST_TRAINING_CHILD) == (split == "train")
        ]
        return scan

    def _read_valid(self, record: Record, image: Tensor) -> Tensor:
        return field_of_view(image)
