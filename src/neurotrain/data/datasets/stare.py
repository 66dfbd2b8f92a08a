"""STARE: 20 fundus photographs, half of them of diseased eyes (Hoover et al., 2000)."""

from __future__ import annotations

import difflib
from pathlib import Path

from torch import Tensor

from neurotrain.data.datasets.base import Record, Scan, SegmentationDataset
from neurotrain.data.datasets.field_of_view import field_of_view
from neurotrain.data.datasets.layout import attach, find

TRAINING_IMAGES = 10


class Stare(SegmentationDataset):
    """Structured Analysis of the Retina: 20 photographs of 605 x 700 pixels, labelled by two observers.

    The layout, as the archives unpack; each file may still carry its ``.gz``::

        im0001.ppm  labels-ah/im0001.ah.ppm  labels-vk/im0001.vk.ppm

    (the images may lie in ``stare-images`` instead). ``labels-ah`` (A. Hoover) is the truth, ``labels-vk``
    (V. Kouznetsova) the second observer. There is no official split. By default the first 10 images in the order of
    their ids are training and the last 10 test; ``fold`` leaves one image out, as most papers do. ``valid`` is
    computed, see :func:`~neurotrain.data.datasets.field_of_view.field_of_view`.

    Args:
        root: folder that holds ``labels-ah``.
        test: ids of the test images, for instance ``("im0001", "im0077")``; all others are training.
        fold: number (from 0, in the order of the ids) of the one image that is left out as test.

    Raises:
        ValueError: if both ``test`` and ``fold`` are given, or ``fold`` is negative.

    Reference:
        Hoover et al., 2000, doi:10.1109/42.845178; https://cecas.clemson.edu/~ahoover/stare/.
    """

    name = "stare"
    class_names = ("vessel",)
    obtain = (
        "download stare-images.tar and labels-ah.tar from https://cecas.clemson.edu/~ahoover/stare/probing/, "
        "unpack so that <root>/im0001.ppm.gz and <root>/labels-ah exist"
    )

    def __init__(self, *, root: Path, test: tuple[str, ...] | None = None, fold: int | None = None) -> None:
        """Take the settings; nothing on disk is touched yet."""
        super().__init__(root=root)
        if test is not None and fold is not None:
            raise ValueError(f"test={test!r} and fold={fold}: the test images are chosen by one of them, leave out one")
        if fold is not None and fold < 0:
            raise ValueError(f"fold={fold}: images are counted from 0; nearest: 0")
        self.test = None if test is None else tuple(test)
        self.fold = fold

    def _scan(self, split: str) -> Scan:
        scan, name = Scan(), r"im\d+"
        flat, nested = self.root, self.root / "stare-images"
        images = find(scan, nested if nested.is_dir() else flat, "{id}.ppm", "{id}.ppm.gz", ids=name)
        labels = {
            who: attach(
                scan,
                images,
                self.root / f"labels-{who}",
                f"{{id}}.{who}.ppm",
                f"{{id}}.{who}.ppm.gz",
                what=f"labels ({who})",
                ids=name,
                optional=who == "vk",
            )
            for who in ("ah", "vk")
        }
        test = self._test_ids(scan, tuple(images)) if images else ()
        scan.records = [
            Record(id=key, image=image, mask=labels["ah"].get(key), second=labels["vk"].get(key))
            for key, image in images.items()
            if (key in test) == (split == "test")
        ]
        return scan

    def _test_ids(self, scan: Scan, ids: tuple[str, ...]) -> tuple[str, ...]:
        if self.fold is not None:
            if self.fold >= len(ids):
                raise ValueError(f"fold={self.fold}: {self.root} holds {len(ids)} images; nearest: {len(ids) - 1}")
            return (ids[self.fold],)
        if self.test is None:
            return ids[TRAINING_IMAGES:]
        for key in self.test:
            if key not in ids:
                near = difflib.get_close_matches(key, ids, n=1, cutoff=0.0)[0]
                scan.report("missing", self.root / f"{key}.ppm", f"named by test={self.test!r}; nearest: {near!r}")
        return self.test

    def _read_valid(self, record: Record, image: Tensor) -> Tensor:
        return field_of_view(image)
