"""BTCV: CT of the abdomen with 13 organs, as ``dataset_0.json`` lists it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, cast

from neurotrain.data.datasets.problems import DatasetError, Problem
from neurotrain.data.volumes.base import VolumeDataset, VolumeRecord, bare, volume_files
from neurotrain.data.volumes.labels import LabelMap
from neurotrain.documents import parse_json

ORGANS = (
    *("spleen", "right_kidney", "left_kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
    *("inferior_vena_cava", "portal_and_splenic_veins", "pancreas", "right_adrenal_gland", "left_adrenal_gland"),
)
"""In the order of their codes, from 1."""


class Btcv(VolumeDataset):
    """30 labelled abdominal CTs: ``<root>/dataset_0.json`` names files under ``imagesTr`` and ``labelsTr``.

    ``training`` of the file is trained on. Its ``validation``, the 6 labelled cases that papers report on, is the split
    ``test`` here: validation is held out of the training cases, as for every data set. The file's ``test`` has no
    labels; ``source=<root>/imagesTs`` predicts it.

    Args:
        root: folder of the list.
        listing: name of the list.

    Reference:
        Landman et al., 2015, doi:10.7303/syn3193805; the list: Tang et al., 2022 (arXiv:2111.14791).

    Example:
        >>> Btcv(root="data/BTCV").label_map.names[:3]
        ('background', 'spleen', 'right_kidney')
    """

    name = "btcv"
    channels = ("ct",)
    label_map = LabelMap(
        mode="multiclass", names=("background", *ORGANS), codes=tuple((code,) for code in range(len(ORGANS) + 1))
    )
    obtain = (
        "register at https://www.synapse.org/Synapse:syn3193805, unpack RawData so that <root>/imagesTr and "
        "<root>/labelsTr exist, and put dataset_0.json beside them"
    )

    def __init__(self, *, root: Path, listing: str = "dataset_0.json") -> None:
        """Take the settings; nothing on disk is touched yet."""
        super().__init__(root=root)
        self._listing = listing

    def _scan(self, problems: list[Problem]) -> dict[str, list[VolumeRecord]]:
        path = self.root / self._listing
        try:
            listed = parse_json(path.read_text("utf-8"))
        except FileNotFoundError:
            problems.append(Problem(kind="missing", path=path, detail="no list of cases"))
            return {"train": [], "test": []}
        except (OSError, ValueError) as error:
            problems.append(Problem(kind="unreadable", path=path, detail=f"is no JSON: {error}"))
            return {"train": [], "test": []}
        found: dict[str, list[VolumeRecord]] = {}
        seen: dict[str, Path] = {}
        for split, key in (("train", "training"), ("test", "validation")):
            entries = listed.get(key, []) if isinstance(listed, dict) else []
            found[split] = self._cases(path, key, entries, seen, problems)
        return found

    def _cases(
        self,
        path: Path,
        key: str,
        entries: object,
        seen: dict[str, Path],
        problems: list[Problem],
    ) -> list[VolumeRecord]:
        cases: list[VolumeRecord] = []
        for entry in cast("list[Any]", entries) if isinstance(entries, list) else []:
            try:
                image, labels = (self._inside(entry[name]) for name in ("image", "label"))
            except (KeyError, TypeError, ValueError) as error:
                problems.append(Problem(kind="unreadable", path=path, detail=f"{key}: {entry!r}: {error}"))
                continue
            other = seen.setdefault(bare(image), image)
            if other is not image:
                problems.append(Problem(kind="duplicate", path=image, detail=f"claims the id of {other}"))
            absent = [file for file in (image, labels) if not file.is_file()]
            problems += [Problem(kind="missing", path=file, detail=f"is listed under {key}") for file in absent]
            cases.append(VolumeRecord(id=bare(image), images=(image,), labels=labels))
        return cases

    def _inside(self, name: str) -> Path:
        """A listed path, which must stay in the folder."""
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError("leaves the folder of the list")
        return self.root / parts

    def find(self, source: str) -> tuple[VolumeRecord, ...]:
        """One case a file; see :meth:`VolumeDataset.find`."""
        files = volume_files(source)
        records = tuple(VolumeRecord(id=bare(file), images=(file,)) for file in files)
        names = [record.id for record in records]
        twice = [Problem(kind="duplicate", path=r.images[0], detail=r.id) for r in records if names.count(r.id) > 1]
        if twice:
            raise DatasetError.listing(f"source={source}", twice)
        return records
