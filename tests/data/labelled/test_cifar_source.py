from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_files import write_cifar10

from neurotrain.data.decoders import ClassificationDecoder
from neurotrain.data.labelled import CifarSource
from neurotrain.data.labelled.plain_pickle import read_plain_pickle
from neurotrain.data.sources import SampleFormatError
from neurotrain.storage import LocalStorage


def test_five_batches_in_order_with_their_planes_put_together(tmp_path: Path) -> None:
    first = write_cifar10(tmp_path)
    source = CifarSource(storage=LocalStorage(root=tmp_path))
    source.setup()
    assert len(source) == 15
    assert source.class_names() == ("airplane", "automobile", "bird")
    assert source.table().column("id").to_pylist()[2:4] == ["data_batch_1-00002", "data_batch_2-00000"]
    sample = ClassificationDecoder()(source.read(1), torch.Generator())
    assert np.array_equal(sample["image"].numpy(), first[1].reshape(3, 32, 32))
    assert int(sample["label"]) == 1


def test_torchvision_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    write_cifar10(tmp_path / "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: None)
    # It reads Python 2's pickles, whose keys are texts in latin1.
    for file in (tmp_path / "cifar-10-batches-py").iterdir():
        found = pickle.loads(file.read_bytes())
        file.write_bytes(pickle.dumps({key.decode(): value for key, value in found.items()}, protocol=2))
    theirs = CIFAR10(str(tmp_path), train=False)
    ours = CifarSource(storage=LocalStorage(root=tmp_path / "cifar-10-batches-py"), split="test")
    ours.setup()
    decode = ClassificationDecoder()
    for index in range(3):
        picture, label = theirs[index]
        sample = decode(ours.read(index), torch.Generator())
        assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), np.asarray(picture))
        assert int(sample["label"]) == label


def test_cifar100_has_fine_and_coarse_classes(tmp_path: Path) -> None:
    data = np.zeros((2, 3072), np.uint8)
    batch = {"data": data, "fine_labels": [1, 0], "coarse_labels": [0, 0]}
    (tmp_path / "train").write_bytes(pickle.dumps(batch))
    (tmp_path / "meta").write_bytes(
        pickle.dumps({"fine_label_names": ["apple", "fish"], "coarse_label_names": ["all"]})
    )
    for variant, wanted in (("cifar100", [1, 0]), ("cifar100_coarse", [0, 0])):
        source = CifarSource(storage=LocalStorage(root=tmp_path), variant=variant)
        source.setup()
        assert source.table().column("label").to_pylist() == wanted


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": _Evil()}, "mkdir, which is refused"),
        ({"data": np.zeros(3, np.float32)}, "'f4' is refused"),
        ({"data": np.array([_Evil()], dtype=object)}, "refused"),
        ([1], "holds a list"),
    ],
)
def test_pickles_that_would_run_code_or_hold_other_things_are_refused(
    content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SampleFormatError, match=message):
        read_plain_pickle(pickle.dumps(content), uri="batch")
    assert not (tmp_path / "harmed").exists()


def test_cut_off_and_oversized_files_are_refused(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    with pytest.raises(SampleFormatError, match="at most max_bytes=100"):
        CifarSource(storage=LocalStorage(root=tmp_path), max_bytes=100).setup()
    file = tmp_path / "test_batch"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(SampleFormatError, match="test_batch"):
        CifarSource(storage=LocalStorage(root=tmp_path), split="test").setup()
