"""The same folder in a bucket: a real server, prefixes, pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from servers import CREDENTIALS, MotoServer, start_moto

from neurotrain.data.decoders import SegmentationDecoder
from neurotrain.data.sources import FolderSource
from neurotrain.storage import LocalStorage, S3Storage

PATTERNS = {
    "image": "training/images/{id}_training.tif",
    "mask": "training/1st_manual/{id}_manual1.gif",
    "valid": "training/mask/{id}_training_mask.gif",
}


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with start_moto() as server:
        yield server


def test_drive_in_a_bucket_is_drive_in_a_folder(moto: MotoServer, shared_data: Path, tmp_path: Path) -> None:
    local = LocalStorage(root=shared_data / "DRIVE")
    bucket = moto.make_bucket("drive")
    remote = S3Storage(bucket=bucket, prefix="data/drive", endpoint_url=moto.url, page_size=7, **CREDENTIALS)
    for info in local.list("training/"):
        if "/2" in info.key:  # 20 to 29
            remote.write(info.key, local.read(info.key))
    remote.write("training/images/notes.txt", b"no image")
    source = FolderSource(name="drive", storage=remote, index_dir=tmp_path, dimensions=True, threads=4, **PATTERNS)
    source.setup()
    near = FolderSource(name="drive", storage=local, **PATTERNS)
    near.setup()
    assert source.table().column("id").to_pylist() == [str(number) for number in range(21, 30)]
    assert set(source.table().column("width").to_pylist()) == {565}
    decode, generator = SegmentationDecoder(), torch.Generator()
    there, here = (decode(one.read(4), generator) for one in (source, near))
    assert all(torch.equal(there[part], here[part]) for part in ("image", "mask", "valid"))
    assert source.read(4).identity["mask"] == remote.stat("training/1st_manual/25_manual1.gif").etag
    again = FolderSource(name="drive", storage=remote, index_dir=tmp_path, dimensions=True, threads=4, **PATTERNS)
    reads = remote.statistics().reads
    again.setup()
    assert remote.statistics().reads == reads
    assert again.fingerprint() == source.fingerprint()
    remote.close()
