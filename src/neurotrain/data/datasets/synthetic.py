"""A rendered stand-in for DRIVE: for tests, examples and machines without the real data."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from neurotrain.data.datasets.drive import Drive
from neurotrain.data.datasets.problems import DatasetError
from neurotrain.data.datasets.synthetic_fundus import FundusPicture, render_fundus

MARKER = "synthetic.json"
"""Written last into a rendered folder: the parameters that it was rendered with."""

RENDERER = 1
"""Raised when the renderer draws the same seed differently, so that an older folder is not taken for a newer one."""

SMALLEST = 48


class SyntheticDrive(Drive):
    """Rendered fundus photographs in DRIVE's exact layout, with exact labels and a plausible second observer.

    Nothing is rendered before the first use. Then the folder ``<root>/seed<seed>-...`` is made, named by all
    parameters, so that other parameters live beside it. It is drawn in a temporary sibling and renamed: it is complete
    or it is not there, also when several processes render at once. The same parameters give the same bytes under the
    same versions of NumPy, SciPy and Pillow. The defaults take some 6 seconds of one core.

    No figure on these pictures says anything about real ones: ``synthetic`` is True.

    Args:
        root: folder for all rendered sets; made if absent.
        seed: of every draw, at least 0.
        train: training images.
        test: test images.
        size: height and width in pixels; half of DRIVE's by default.

    Raises:
        ValueError: if a number is too small.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     dataset = SyntheticDrive(root=folder, train=1, test=1, size=(73, 71))
        ...     sample = dataset.read(dataset.records("train")[0])
        >>> sample["image"].shape, sample["mask"].unique().tolist(), dataset.root.name
        (torch.Size([3, 73, 71]), [0, 1], 'seed0-1+1-73x71-v1')
    """

    name = "synthetic_drive"
    synthetic = True
    obtain = "these files are rendered: remove <root>, and they are rendered anew on the next use"

    def __init__(
        self, *, root: Path, seed: int = 0, train: int = 12, test: int = 6, size: tuple[int, int] = (292, 283)
    ) -> None:
        """Take the settings; nothing on disk is touched yet."""
        for key, value, least in (("seed", seed, 0), ("train", train, 1), ("test", test, 1)):
            if value < least:
                raise ValueError(f"{key}={value}: at least {least}; nearest: {least}")
        if len(size) != 2 or min(size) < SMALLEST:
            raise ValueError(f"size={tuple(size)}: height and width of at least {SMALLEST} pixels; nearest: (48, 48)")
        self.seed, self.train, self.test, self.size = seed, train, test, (size[0], size[1])
        folder = f"seed{seed}-{train}+{test}-{size[0]}x{size[1]}-v{RENDERER}"
        super().__init__(root=Path(root).expanduser() / folder)

    @property
    def splits(self) -> tuple[str, ...]:
        """Always both."""
        return ("train", "test")

    def _parameters(self) -> dict[str, object]:
        return {
            "renderer": RENDERER,
            "seed": self.seed,
            "train": self.train,
            "test": self.test,
            "size": list(self.size),
        }

    def _prepare(self) -> None:
        if not self.root.exists():
            self._render()
        marker = self.root / MARKER
        if not marker.is_file() or json.loads(marker.read_text("utf-8")) != self._parameters():
            detail = f"does not say {self._parameters()}: {self.root} was not rendered as this dataset, remove it"
            raise DatasetError.single("missing", marker, detail)

    def _render(self) -> None:
        self.root.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{self.root.name}-", dir=self.root.parent))
        try:
            self._write(building)
            building.chmod(0o755)  # mkdtemp keeps others out; a shared data folder lets them read
            try:
                building.rename(self.root)
            except OSError:
                # Another process was first: a rename never replaces a folder that holds files.
                if not (self.root / MARKER).is_file():
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _write(self, folder: Path) -> None:
        first_training = max(21, self.test + 1)
        for split, first, count in (("test", 1, self.test), ("training", first_training, self.train)):
            for number in range(first, first + count):
                picture = render_fundus(np.random.default_rng([self.seed, number]), size=self.size)
                _save(picture, folder / split, f"{number:02d}", split)
        (folder / MARKER).write_text(json.dumps(self._parameters(), indent=1) + "\n", "utf-8")


def _save(picture: FundusPicture, folder: Path, number: str, split: str) -> None:
    from PIL import Image

    files = {
        f"images/{number}_{split}.tif": picture.image,
        f"1st_manual/{number}_manual1.gif": picture.vessels,
        f"mask/{number}_{split}_mask.gif": picture.field,
    }
    if split == "test":
        files[f"2nd_manual/{number}_manual2.gif"] = picture.second
    for name, pixels in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint8) * 255
        Image.fromarray(values).save(path)
