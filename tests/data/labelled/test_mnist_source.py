from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_files import digits, idx_bytes, write_mnist

from neurotrain.data.decoders import ClassificationDecoder
from neurotrain.data.labelled import MnistSource
from neurotrain.data.labelled.idx import read_idx
from neurotrain.data.sources import SampleFormatError
from neurotrain.storage import LocalStorage, ObjectNotFoundError


def _source(folder: Path, **changes: object) -> MnistSource:
    return MnistSource(**{"storage": LocalStorage(root=folder), "split": "test", **changes})  # pyright: ignore


@pytest.mark.parametrize("compressed", [True, False])
def test_pixels_and_labels_come_out_as_they_are(compressed: bool, tmp_path: Path) -> None:
    write_mnist(tmp_path, count=20, compressed=compressed)
    source = _source(tmp_path)
    source.setup()
    pixels, labels = digits(20)
    decode = ClassificationDecoder()
    for index in (0, 19):
        sample = decode(source.read(index), torch.Generator())
        assert int(sample["label"]) == labels[index]
        for channel in sample["image"]:
            assert np.array_equal(channel.numpy(), pixels[index])
    assert source.table().column("label").to_pylist() == labels.tolist()
    assert pickle.loads(pickle.dumps(source)).read(3).id == "test-00003"


def test_first_and_count_divide_the_digits_without_overlap(tmp_path: Path) -> None:
    write_mnist(tmp_path, count=20)
    train, test = _source(tmp_path, count=15), _source(tmp_path, first=15)
    for source in (train, test):
        source.setup()
    ids = [source.table().column("id").to_pylist() for source in (train, test)]
    assert [len(part) for part in ids] == [15, 5]
    assert len({*ids[0], *ids[1]}) == 20
    assert train.fingerprint() != test.fingerprint()
    with pytest.raises(ValueError, match="there are 20"):
        _source(tmp_path, count=21).setup()


def test_an_order_of_ones_own_divides_them_at_random(tmp_path: Path) -> None:
    write_mnist(tmp_path, count=20)
    pixels, labels = digits(20)
    ids: list[list[str]] = []
    for part in ({"count": 15}, {"first": 15}, {"count": 15, "order_seed": 2}):
        source = _source(tmp_path, **{"order_seed": 1, **part})
        source.setup()
        ids.append(source.table().column("id").to_pylist())
        for place, name in enumerate(ids[-1]):
            number = int(name.removeprefix("test-"))
            assert source.read(place).fields["label"] == labels[number]
            assert source.read(place).fields["image"].endswith(pixels[number].tobytes())
    train, test, other = ids
    assert sorted(train + test) == [f"test-{number:05d}" for number in range(20)]
    assert train != sorted(train)
    assert set(train) != set(other)
    with pytest.raises(ValueError, match="order_seed=-1"):
        _source(tmp_path, order_seed=-1)


def test_other_pixels_are_another_fingerprint(tmp_path: Path) -> None:
    write_mnist(tmp_path, count=10)
    before = _source(tmp_path)
    before.setup()
    pixels, _ = digits(10)
    pixels[3, 0, 0] ^= 1
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(pixels)))
    after = _source(tmp_path)
    after.setup()
    assert before.fingerprint() != after.fingerprint()


def test_the_official_test_digits(shared_data: Path) -> None:
    folder = shared_data / "MNIST" / "raw"
    if not folder.is_dir():
        pytest.skip(f"MNIST is not at {folder}")
    source = _source(folder)
    source.setup()
    labels = source.table().column("label").to_pylist()
    assert len(source) == 10_000
    assert labels[:10] == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFoundError, match="t10k-images-idx3-ubyte"):
        _source(tmp_path).setup()


_GOOD = idx_bytes(np.zeros((2, 3, 3), np.uint8))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no idx file"),
        (b"\x00\x00\x0d\x03" + _GOOD[4:], "begins with 00000d03"),
        (_GOOD[:-1], "the file has 17"),
        (_GOOD + b"x", "more than 18"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "at most 100"),
        (gzip.compress(_GOOD, mtime=0)[:-12], "cut off|gzip"),
        (b"\x1f\x8bnonsense", "gzip"),
    ],
)
def test_files_that_are_wrong_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(SampleFormatError, match=message):
        read_idx(data, uri="digits", dimensions=3, max_bytes=100)


def test_a_compressed_bomb_is_refused_without_being_unpacked() -> None:
    header = bytes([0, 0, 8, 1, 0, 0, 0, 2])
    bomb = gzip.compress(header + bytes(50_000_000))
    with pytest.raises(SampleFormatError, match="more than 2"):
        read_idx(bomb, uri="digits", dimensions=1, max_bytes=100)


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, count=10)
    with pytest.raises(SampleFormatError, match="label 9, there are 2 classes"):
        _source(tmp_path, classes=("a", "b")).setup()
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(9, np.uint8)))
    with pytest.raises(SampleFormatError, match="9 labels for 10 pictures"):
        _source(tmp_path).setup()
