"""Latents of real pictures in a folder of JPEGs, read by a forked worker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from neurotrain.data.cache import LatentCache, TensorCache, draw_latent, verify, weights_fingerprint
from neurotrain.data.cached import CroppedPicture
from neurotrain.data.decoders import ImagePreparation
from neurotrain.data.sources import FolderSource
from neurotrain.storage import LocalStorage


class ConvolutionalEncoder:
    """A small encoder of a variational autoencoder."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.SiLU(), nn.Conv2d(8, 8, 2, stride=2)).eval()

    def fingerprint(self) -> str:
        return weights_fingerprint(self.network)

    def encode(self, image_BCHW: Tensor) -> Mapping[str, Tensor]:
        mean_BCHW, logvar_BCHW = self.network(image_BCHW).chunk(2, dim=1)
        return {"mean": mean_BCHW, "logvar": logvar_BCHW}


class Latents(Dataset[Tensor]):
    """What a training set does with a cache."""

    def __init__(self, latents: LatentCache, source: FolderSource) -> None:
        self.latents, self.source = latents, source

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        """A drawn latent."""
        (entry,) = self.latents.fetch([self.source.read(index)])
        return draw_latent(entry, mode="sample", generator=torch.Generator().manual_seed(index))


def test_pictures_of_coco_are_encoded_once_and_read_by_a_worker(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted((shared_data / "COCO-MINI" / "val2017").iterdir())[:12]:
        (folder / path.name).write_bytes(path.read_bytes())
    source = FolderSource(name="coco", storage=LocalStorage(root=folder))
    source.setup()
    wide = ImagePreparation(resolution=64, aspect="buckets", aspect_buckets=(1.5,))
    encoder, prepare = ConvolutionalEncoder(), CroppedPicture(preparation=wide)
    cache = TensorCache(folder=tmp_path / "cache")
    latents = LatentCache(cache=cache, encoder=encoder, prepare=prepare, dtype=torch.float16)
    report = latents.build(source)
    assert (report.encoded, report.failed) == (12, ())
    expected = encoder.encode(torch.stack([prepare(source.read(index)) for index in range(12)]))
    for index in range(12):
        entry = latents.get(source.read(index))
        assert entry is not None
        torch.testing.assert_close(entry["mean"].float(), expected["mean"][index], rtol=2e-3, atol=1e-3)
        assert entry["mean"].shape == (4, 8, 12)
    dataset = Latents(latents.lookup_only(), source)
    alone = torch.cat(list(DataLoader(dataset, batch_size=4)))
    worker = torch.cat(list(DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="fork")))
    assert torch.equal(alone, worker)
    again = latents.build(source)
    assert (again.encoded, again.present) == (0, 12)
    assert verify(tmp_path / "cache").ok
