"""Data sets of rendered volumes, written in the official layouts on first use and read by the official readers."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.datasets.problems import DatasetError
from neurotrain.data.volumes.base import VolumeDataset
from neurotrain.data.volumes.brats import MODALITIES, Brats
from neurotrain.data.volumes.btcv import ORGANS, Btcv
from neurotrain.data.volumes.nifti import write_volume
from neurotrain.data.volumes.phantoms import render_abdomen, render_brain, render_geometry

MARKER = "synthetic.json"
"""Written last into a rendered folder: the parameters that it was rendered with."""

RENDERER = 1
"""Raised when the renderer draws the same seed differently."""

_SMALLEST = 16
_WITHOUT_ENHANCING = 5  # every fifth tumour


class SyntheticBtcv(Btcv):
    """Rendered abdominal CTs in BTCV's exact layout; the gallbladder is there in none of them.

    Nothing is rendered before the first use. Then ``<root>/btcv-seed<seed>-...`` is made, named by all parameters; it
    is complete or not there. The same parameters give the same voxels. The defaults take some 10 seconds of one core.
    No figure on these volumes says anything about real ones: ``synthetic`` is True.

    Args:
        root: folder for all rendered sets; made if absent.
        seed: of every draw, at least 0.
        train: cases to train on.
        test: cases to test on.
        size: voxels along right, anterior, superior.
        spacing: millimetres of a voxel along them, from which each case differs by up to 8 %.

    Raises:
        ValueError: if a number is too small.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     dataset = SyntheticBtcv(root=folder, train=1, test=1, size=(24, 20, 16))
        ...     case = dataset.read(dataset.records("test")[0])
        >>> tuple(case.image.shape), 4 in case.labels
        ((1, 24, 20, 16), False)
    """

    name = "synthetic_btcv"
    synthetic = True
    obtain = "these files are rendered: remove <root>, and they are rendered anew on the next use"

    def __init__(
        self,
        *,
        root: Path,
        seed: int = 0,
        train: int = 16,
        test: int = 6,
        size: tuple[int, int, int] = (72, 60, 36),
        spacing: tuple[float, float, float] = (4.0, 4.0, 6.0),
    ) -> None:
        """Take the settings; nothing on disk is touched yet."""
        self._parameters = _parameters("btcv", seed=seed, train=train, test=test, size=size, spacing=spacing)
        super().__init__(root=Path(root).expanduser() / _folder("btcv", self._parameters))
        self._train, self._count = train, train + test
        self._seed, self._size, self._spacing = seed, (size[0], size[1], size[2]), spacing

    def _prepare(self) -> None:
        _ensure(self, self._parameters, self._write)

    def _write(self, folder: Path) -> None:
        (folder / "imagesTr").mkdir()
        (folder / "labelsTr").mkdir()
        entries: list[dict[str, str]] = []
        for number in range(1, self._count + 1):
            rng = np.random.default_rng([self._seed, number])
            image, labels = render_abdomen(rng, size=self._size)
            geometry = render_geometry(rng, number=number, size=self._size, spacing=self._spacing)
            entry = {"image": f"imagesTr/img{number:04d}.nii.gz", "label": f"labelsTr/label{number:04d}.nii.gz"}
            affine = np.array(geometry.affine)
            write_volume(folder / entry["image"], _whole(geometry.from_canonical(image)), affine)
            write_volume(folder / entry["label"], np.ascontiguousarray(geometry.from_canonical(labels)), affine)
            entries.append(entry)
        listing = {
            "labels": {str(code): name for code, name in enumerate(("background", *ORGANS))},
            "training": entries[: self._train],
            "validation": entries[self._train :],
            "test": [],
        }
        (folder / "dataset_0.json").write_text(json.dumps(listing, indent=1) + "\n", "utf-8")


class SyntheticBrats(Brats):
    """Rendered brains with tumours in BraTS 2021's exact layout; every fifth has no enhancing tumour.

    As :class:`SyntheticBtcv`, in ``<root>/brats-seed<seed>-...``.

    Args:
        root: folder for all rendered sets; made if absent.
        seed: of every draw, at least 0.
        train: cases to train on.
        test: cases to test on.
        size: voxels along right, anterior, superior.
        spacing: millimetres of a voxel along them, from which each case differs by up to 8 %.

    Raises:
        ValueError: if a number is too small.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     dataset = SyntheticBrats(root=folder, train=1, test=1, size=(24, 20, 16))
        ...     [len(dataset.records(split)) for split in ("train", "test")]
        [1, 1]
    """

    name = "synthetic_brats"
    synthetic = True
    obtain = "these files are rendered: remove <root>, and they are rendered anew on the next use"

    def __init__(
        self,
        *,
        root: Path,
        seed: int = 0,
        train: int = 16,
        test: int = 6,
        size: tuple[int, int, int] = (64, 72, 40),
        spacing: tuple[float, float, float] = (2.5, 2.5, 4.0),
    ) -> None:
        """Take the settings; nothing on disk is touched yet."""
        self._parameters = _parameters("brats", seed=seed, train=train, test=test, size=size, spacing=spacing)
        super().__init__(root=Path(root).expanduser() / _folder("brats", self._parameters), test=test)
        self._count = train + test
        self._seed, self._size, self._spacing = seed, (size[0], size[1], size[2]), spacing

    def _prepare(self) -> None:
        _ensure(self, self._parameters, self._write)

    def _write(self, folder: Path) -> None:
        for number in range(self._count):
            rng = np.random.default_rng([self._seed, number])
            enhancing = number % _WITHOUT_ENHANCING != _WITHOUT_ENHANCING - 1
            image, labels = render_brain(rng, size=self._size, enhancing=enhancing)
            geometry = render_geometry(rng, number=number, size=self._size, spacing=self._spacing)
            name, affine = f"BraTS2021_{number:05d}", np.array(geometry.affine)
            (folder / name).mkdir()
            for modality, channel in zip(MODALITIES, image, strict=True):
                path = folder / name / f"{name}_{modality}.nii.gz"
                write_volume(path, _whole(geometry.from_canonical(channel)), affine)
            path = folder / name / f"{name}_seg.nii.gz"
            write_volume(path, np.ascontiguousarray(geometry.from_canonical(labels)), affine)


def _whole(image: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.ascontiguousarray(image.round().astype(np.int16))


def _parameters(
    kind: str, *, seed: int, train: int, test: int, size: tuple[int, ...], spacing: tuple[float, ...]
) -> dict[str, object]:
    for key, value, least in (("seed", seed, 0), ("train", train, 1), ("test", test, 1)):
        if value < least:
            raise ValueError(f"{key}={value}: at least {least}; nearest: {least}")
    if len(size) != 3 or min(size) < _SMALLEST:
        raise ValueError(f"size={tuple(size)}: three numbers of at least {_SMALLEST} voxels")
    if len(spacing) != 3 or not min(spacing) > 0:
        raise ValueError(f"spacing={tuple(spacing)}: three positive numbers of millimetres")
    counts: dict[str, object] = {"kind": kind, "renderer": RENDERER, "seed": seed, "train": train, "test": test}
    return counts | {"size": list(size), "spacing": list(spacing)}


def _folder(kind: str, parameters: dict[str, object]) -> str:
    def joined(name: str) -> str:
        values = parameters[name]
        assert isinstance(values, list)
        return "x".join(f"{value:g}" for value in values)

    counts = f"{parameters['train']}+{parameters['test']}"
    return f"{kind}-seed{parameters['seed']}-{counts}-{joined('size')}-{joined('spacing')}mm-v{RENDERER}"


def _ensure(dataset: VolumeDataset, parameters: dict[str, object], write: Callable[[Path], None]) -> None:
    root = dataset.root
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
        try:
            write(building)
            (building / MARKER).write_text(json.dumps(parameters, indent=1) + "\n", "utf-8")
            building.chmod(0o755)  # mkdtemp keeps others out; a shared data folder lets them read
            try:
                building.rename(root)
            except OSError:
                # Another process was first: a rename never replaces a folder that holds files.
                if not (root / MARKER).is_file():
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
    marker = root / MARKER
    if not marker.is_file() or json.loads(marker.read_text("utf-8")) != parameters:
        detail = f"does not say {parameters}: {root} was not rendered as this data set, remove it"
        raise DatasetError.single("missing", marker, detail)
