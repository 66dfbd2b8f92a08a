"""BraTS 2020 and 2021: MR of gliomas in four modalities, a folder for each case."""

from __future__ import annotations

from pathlib import Path

from neurotrain.data.datasets.problems import DatasetError, Problem
from neurotrain.data.datasets.splits import hold_out
from neurotrain.data.volumes.base import VolumeDataset, VolumeRecord, bare, is_volume
from neurotrain.data.volumes.labels import LabelMap

MODALITIES = ("flair", "t1", "t1ce", "t2")

_SPLIT_SEED = 2021
"""Of the cases that are held out for the test: the same for every training seed."""


class Brats(VolumeDataset):
    """Cases ``<root>/<id>/<id>_{flair,t1,t1ce,t2,seg}.nii[.gz]``, as both years' training archives unpack.

    Codes: 1 necrotic core, 2 edema, 4 enhancing tumour. Predicted and scored are the challenge's overlapping regions:
    whole tumour (1, 2, 4), tumour core (1, 4), enhancing tumour (4). Written are codes again: 4 where enhancing, else 1
    where core, else 2 where whole tumour.

    The challenge's own validation cases have no labels (``source=FOLDER`` predicts them), so the test split is drawn
    out of the training archive.

    Args:
        root: folder of the cases' folders.
        test: labelled cases that make up the test split; the same ones whatever the seed of a run.

    Raises:
        ValueError: if ``test`` is negative.

    Reference:
        Menze et al., 2015, doi:10.1109/TMI.2014.2377694; Baid et al., 2021 (arXiv:2107.02314).

    Example:
        >>> Brats(root="data/BraTS2021").label_map.names
        ('whole_tumor', 'tumor_core', 'enhancing_tumor')
    """

    name = "brats"
    channels = MODALITIES
    label_map = LabelMap(
        mode="multilabel",
        names=("whole_tumor", "tumor_core", "enhancing_tumor"),
        codes=((1, 2, 4), (1, 4), (4,)),
        paint=((0, 2), (1, 1), (2, 4)),
    )
    obtain = (
        "register at https://www.synapse.org/brats, unpack the training archive so that "
        "<root>/BraTS2021_00000/BraTS2021_00000_flair.nii.gz exists"
    )

    def __init__(self, *, root: Path, test: int = 0) -> None:
        """Take the settings; nothing on disk is touched yet."""
        super().__init__(root=root)
        if test < 0:
            raise ValueError(f"test={test}: must be at least 0")
        self._test = test

    def _scan(self, problems: list[Problem]) -> dict[str, list[VolumeRecord]]:
        if not self.root.is_dir():
            problems.append(Problem(kind="missing", path=self.root, detail="no such folder"))
            return {"train": []}
        folders = sorted(folder for folder in self.root.iterdir() if folder.is_dir() and folder.name[0] != ".")
        records = [self._case(folder, problems, labelled=True) for folder in folders]
        cases = [record for record in records if record is not None]
        if problems or not self._test:
            return {"train": cases}
        if self._test >= len(cases):
            detail = f"has {len(cases)} cases, test={self._test} leaves none to train on"
            problems.append(Problem(kind="empty split", path=self.root, detail=detail))
            return {"train": []}
        parted = hold_out(cases, count=self._test, seed=_SPLIT_SEED)
        return {"train": list(parted.train), "test": list(parted.held_out)}

    def _case(self, folder: Path, problems: list[Problem], *, labelled: bool) -> VolumeRecord | None:
        files = {bare(file).lower(): file for file in sorted(folder.iterdir()) if is_volume(file)}
        images = [files.get(f"{folder.name}_{name}".lower()) for name in self.channels]
        labels = files.get(f"{folder.name}_seg".lower())
        if labels is None:
            # Case 355 of 2020 has its segmentation under another name, in the official archive.
            others = [file for name, file in files.items() if name.endswith("_segm")]
            labels = others[0] if len(others) == 1 else None
        lacking = [name for name, file in zip(self.channels, images, strict=True) if file is None]
        lacking += ["seg"] if labelled and labels is None else []
        if lacking:
            detail = f"lacks {', '.join(f'{folder.name}_{name}.nii[.gz]' for name in lacking)}"
            problems.append(Problem(kind="missing", path=folder, detail=detail))
            return None
        found = tuple(file for file in images if file is not None)
        return VolumeRecord(id=folder.name, images=found, labels=labels if labelled else None)

    def find(self, source: str) -> tuple[VolumeRecord, ...]:
        """One case a folder: ``source`` is that folder, a folder of such folders, or a glob of them."""
        path = Path(source).expanduser()
        if path.is_dir() and any(is_volume(file) for file in path.iterdir()):
            folders = [path]
        elif path.is_dir():
            folders = [folder for folder in path.iterdir() if folder.is_dir()]
        else:
            start = Path(path.anchor)
            folders = [folder for folder in start.glob(str(path.relative_to(start))) if folder.is_dir()]
        if not source.strip() or not folders:
            raise DatasetError.single("missing", path, f"no folder of a case there (source={source})")
        problems: list[Problem] = []
        found = [self._case(folder.resolve(), problems, labelled=False) for folder in sorted(folders)]
        if problems:
            raise DatasetError.listing(f"source={source}", problems)
        return tuple(record for record in found if record is not None)
