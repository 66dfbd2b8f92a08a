"""Hugging Face datasets: folders, what save_to_disk writes, the hub's way through its library, and streams."""

from __future__ import annotations

import json
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neurotrain.data.sources import HuggingFaceSource, HuggingFaceStream, SampleFormatError
from neurotrain.storage import ObjectNotFoundError, TransientError

datasets = pytest.importorskip("datasets")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _rows(first: int, count: int) -> dict[str, list[Any]]:
    numbers = range(first, first + count)
    return {
        "image": [{"bytes": bytes([number, 1]), "path": f"{number}.png"} for number in numbers],
        "label": [number % 3 for number in numbers],
        "text": [f"größe {number}" for number in numbers],
        "score": [number / 2 for number in numbers],
    }


def _expected(number: int) -> dict[str, object]:
    return {"image": bytes([number, 1]), "caption": f"größe {number}", "label": number % 3}


def _dataset(first: int, count: int) -> Any:  # noqa: ANN401
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog", "eel"]),
            "text": datasets.Value("string"),
            "score": datasets.Value("float64"),
        }
    )
    return datasets.Dataset.from_dict(_rows(first, count), features=features)


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    folder = tmp_path / "parquet"
    (folder / "data").mkdir(parents=True)
    for number, count in enumerate((10, 7, 13)):
        table = pa.table(_rows((0, 10, 17)[number], count))
        pq.write_table(table, folder / "data" / f"train-{number:05d}-of-00003.parquet", row_group_size=4)
    pq.write_table(pa.table(_rows(50, 3)), folder / "data" / "test-00000-of-00001.parquet")
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    whole = datasets.DatasetDict(train=_dataset(0, 30), test=_dataset(50, 3))
    whole.save_to_disk(tmp_path / "saved", num_shards={"train": 3, "test": 1})
    return tmp_path / "saved"


def _source(path: Path | str, **settings: Any) -> HuggingFaceSource:  # noqa: ANN401
    source = HuggingFaceSource(name="toy", path=str(path), **settings)
    source.setup()
    return source


@pytest.mark.parametrize("layout", ["parquet", "saved"])
def test_every_row_of_a_folder(layout: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(layout)
    source = _source(folder, split="train")
    assert len(source) == 30
    samples = [source.read(index) for index in range(30)]
    assert [dict(sample.fields) for sample in samples] == [_expected(index) for index in range(30)]
    assert len({sample.id for sample in samples}) == 30
    assert len({sample.identity["image"] for sample in samples}) == 30
    assert source.table().column("id").to_pylist() == [sample.id for sample in samples]
    assert len(_source(folder, split="test")) == 3
    assert pickle.loads(pickle.dumps(source)).read(29) == samples[29]
    assert source.fingerprint() == _source(folder, split="train").fingerprint()
    assert source.fingerprint() != _source(folder, split="test").fingerprint()


@pytest.mark.parametrize("layout", ["parquet", "saved"])
def test_ids_of_the_user(layout: str, request: pytest.FixtureRequest) -> None:
    source = _source(request.getfixturevalue(layout), split="train", id_column="text", filters=[("score", ">", 5)])
    assert source.read(1).id == "größe 12"
    assert source.table().column("id").to_pylist() == [source.read(index).id for index in range(len(source))]
    assert pickle.loads(pickle.dumps(source)).read(1).id == "größe 12"
    with pytest.raises(ValueError, match="3 ids are there more than once"):
        _source(request.getfixturevalue(layout), split="train", id_column="label")


@pytest.mark.parametrize("layout", ["parquet", "saved"])
def test_filters_and_columns(layout: str, request: pytest.FixtureRequest) -> None:
    source = _source(
        request.getfixturevalue(layout),
        split="train",
        columns={"image": "image", "weight": "score"},
        filters=[("label", "!=", 0), ("image.path", "not in", ["22.png"]), ("score", ">", 4)],
        table_columns=["label"],
    )
    kept = [number for number in range(9, 30) if number % 3 and number != 22]
    assert [source.read(index).fields["weight"] for index in range(len(source))] == [number / 2 for number in kept]
    assert source.table().column_names[-2:] == ["weight", "label"]
    assert source.table().column("label").to_pylist() == [number % 3 for number in kept]


def test_names_of_classes(saved: Path, tmp_path: Path) -> None:
    assert _source(saved, split="train").class_names() == ("cat", "dog", "eel")
    (tmp_path / "written").mkdir()
    _dataset(0, 4).to_parquet(tmp_path / "written" / "train.parquet")
    assert _source(tmp_path / "written").class_names() == ("cat", "dog", "eel")


def test_saved_as_one_split(tmp_path: Path) -> None:
    _dataset(0, 5).save_to_disk(tmp_path / "one")
    assert dict(_source(tmp_path / "one").read(4).fields) == _expected(4)
    with pytest.raises(ValueError, match="split='train' has no effect"):
        _source(tmp_path / "one", split="train")


def test_subsets_are_folders(tmp_path: Path) -> None:
    for subset in ("plain", "augmented"):
        (tmp_path / subset).mkdir()
        pq.write_table(pa.table(_rows(0, 2)), tmp_path / subset / "train.parquet")
    assert len(_source(tmp_path, subset="plain")) == 2
    with pytest.raises(ValueError, match="subset='plane' is not one of 'augmented', 'plain'; nearest: 'plain'"):
        _source(tmp_path, subset="plane")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "split=None: choose one of 'test', 'train'"),
        ({"split": "tran"}, "split='tran' is not one of 'test', 'train'; nearest: 'train'"),
        ({"split": "train[:10]"}, "the name of one split is expected; choose rows with filters"),
        ({"split": "../train"}, "the name of one split is expected"),
        ({"split": "train", "revision": COMMIT}, "revision='0123.*' has no effect on the folder"),
        ({"split": "train", "cache_dir": Path("x")}, "cache_dir='x' has no effect"),
        ({"split": "train", "columns": {"image": "imge"}}, "columns.image='imge': no such column; nearest: 'image"),
        ({"split": "train", "filters": [("lable", "==", 1)]}, "'lable': no such column; nearest: 'label'"),
        ({"split": "train", "filters": [("label", "==", 9)]}, "none of 30 rows meets them"),
    ],
)
@pytest.mark.parametrize("layout", ["parquet", "saved"])
def test_settings_that_do_not_fit(
    layout: str, settings: dict[str, Any], message: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(layout)
    with pytest.raises(ValueError, match=message):
        _source(folder, **settings)


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("owner/name", {"split": "train"}, "no folder here; of the hub, give revision, the 40 digits"),
        ("owner/name", {"split": "train", "revision": "main"}, "revision='main': a branch or tag moves"),
        ("owner/name", {"revision": COMMIT}, "a dataset of the hub needs one"),
        ("../secret/name", {"split": "train"}, "neither a folder here nor an id"),
        ("https://example.org/x", {"split": "train"}, "neither a folder here nor an id"),
    ],
)
def test_what_is_no_dataset(path: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HuggingFaceSource(name="toy", path=path, **settings)
    with pytest.raises(ValueError, match=message):
        HuggingFaceStream(name="toy", path=path, **settings)


def test_damaged_folders(saved: Path, tmp_path: Path) -> None:
    path = saved / "train" / "data-00001-of-00003.arrow"
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"<html>" * 50):
        path.write_bytes(broken)
        with pytest.raises(SampleFormatError, match=r"data-00001-of-00003\.arrow: no whole Arrow file"):
            _source(saved, split="train")
    path.unlink()
    with pytest.raises(ValueError, match="incomplete: 2 files, of 00003"):
        _source(saved, split="train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither Parquet files nor what save_to_disk writes"):
        _source(tmp_path / "empty")


def test_a_folder_cannot_lead_elsewhere(saved: Path, tmp_path: Path) -> None:
    """Neither ``state.json`` nor a script in the folder is asked what to read or to do."""
    state = {"_data_files": [{"filename": "../../secret.arrow"}], "_format_type": None}
    (saved / "train" / "state.json").write_text(json.dumps(state))
    (saved / "dataset_dict.json").write_text('{"splits": ["../../elsewhere"]}')
    (saved / "saved.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    assert dict(_source(saved, split="train").read(3).fields) == _expected(3)
    assert not (tmp_path / "canary").exists()


def test_image_stored_as_a_path_only(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": None, "path": "/etc/passwd"}], "label": [0]}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"image": pa.array(rows["image"], type=kind), "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(SampleFormatError, match="'image' is null"):
        _source(tmp_path).read(0)


def _hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[dict[str, Any]]:
    """Let the library's own builder read a folder where it is asked for a repository; note what it was asked."""
    asked: list[dict[str, Any]] = []
    real = datasets.load_dataset_builder
    files = {split: [str(path) for path in sorted(folder.glob(f"data/{split}-*"))] for split in ("train", "test")}

    def builder(path: str, **settings: Any) -> Any:  # noqa: ANN401
        asked.append({"path": path, **settings})
        assert settings.pop("revision") == COMMIT
        assert settings.pop("name") is None
        return real("parquet", data_files=files, **settings)

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    return asked


def test_from_the_hub(parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _hub(monkeypatch, parquet)
    settings = {"path": "owner/name", "revision": COMMIT, "split": "train", "cache_dir": tmp_path / "cache"}
    source = _source(**settings)
    assert [dict(source.read(index).fields) for index in range(30)] == [_expected(index) for index in range(30)]
    assert source.read(3).uri == "hf://datasets/owner/name@0123456/train#3"
    assert asked == [{"path": "owner/name", "name": None, "revision": COMMIT, "cache_dir": str(tmp_path / "cache")}]
    assert pickle.loads(pickle.dumps(source)).read(29) == source.read(29)
    filtered = _source(**settings, filters=[("label", "==", 1)])
    assert asked[-1]["filters"] == [("label", "==", 1)]
    assert [filtered.read(index).fields["caption"] for index in range(len(filtered))] == [
        f"größe {number}" for number in range(30) if number % 3 == 1
    ]
    with pytest.raises(ValueError, match=r"hf://datasets/owner/name@0123456/val: Unknown split"):
        _source(**{**settings, "split": "val"})


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ConnectionError("no network"), TransientError),
        (datasets.exceptions.DatasetNotFoundError("gone"), ObjectNotFoundError),
        (RuntimeError("Dataset scripts are no longer supported"), ValueError),
    ],
)
def test_what_the_hub_answers(
    raised: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with pytest.raises(expected, match="hf://datasets/owner/name@0123456/train"):
        _source("owner/name", revision=COMMIT, split="train", cache_dir=tmp_path)
    with pytest.raises(expected, match="hf://datasets/owner/name@0123456/train"):
        HuggingFaceStream(name="toy", path="owner/name", revision=COMMIT, split="train").shard_count()


def _stream(path: Path, **settings: Any) -> HuggingFaceStream:  # noqa: ANN401
    return HuggingFaceStream(name="toy", path=str(path), **{"split": "train", "shuffle_buffer": 5, **settings})


def _captions(stream: HuggingFaceStream, *, epoch: int = 0, shard: int = 0, shards: int = 1) -> list[object]:
    return [sample.fields["caption"] for sample in stream.stream(epoch=epoch, shard=shard, shards=shards)]


@pytest.mark.parametrize("layout", ["parquet", "saved"])
def test_stream_hands_out_every_row_once(layout: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(layout)
    stream = _stream(folder)
    assert stream.shard_count() == 3
    found = list(stream.stream(epoch=0, shard=0, shards=1))
    assert len({sample.id for sample in found}) == 30
    numbers = [sample.fields["image"][0] for sample in found]  # pyright: ignore[reportIndexIssue]
    assert sorted(numbers) == list(range(30))
    assert numbers != sorted(numbers)
    assert all(dict(sample.fields) == _expected(number) for number, sample in zip(numbers, found, strict=True))
    assert numbers == [
        s.fields["image"][0] for s in pickle.loads(pickle.dumps(stream)).stream(epoch=0, shard=0, shards=1)
    ]


def test_readers_of_a_stream(parquet: Path) -> None:
    with pytest.raises(ValueError, match=r"3 shards for 4 readers \(workers x ranks\)"):
        _stream(parquet).stream(epoch=0, shard=0, shards=4)
    for sharing, readers in (("shards", 3), ("samples", 4)):
        parts = [
            _captions(_stream(parquet, sharing=sharing), shard=reader, shards=readers) for reader in range(readers)
        ]
        assert sorted(str(caption) for part in parts for caption in part) == sorted(
            f"größe {number}" for number in range(30)
        )


def test_stream_resumes_with_its_buffer(parquet: Path) -> None:
    whole = _captions(_stream(parquet), epoch=2)
    for consumed in range(0, 31, 5):
        first = _stream(parquet)
        list(islice(first.stream(epoch=2, shard=0, shards=1), consumed))
        second = _stream(parquet)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert _captions(second, epoch=2) == whole[consumed:]


def test_filters_of_a_stream(parquet: Path, saved: Path) -> None:
    filters = [("label", "not in", [0]), ("score", ">", 4)]
    found = _captions(_stream(parquet, filters=filters))
    assert sorted(map(str, found)) == sorted(f"größe {number}" for number in range(9, 30) if number % 3)
    with pytest.raises(ValueError, match="'lable': no such column; nearest: 'label'"):
        _captions(_stream(parquet, filters=[("lable", "==", 1)]))
    with pytest.raises(ValueError, match=r"columns\.image='imge': no such column"):
        _captions(_stream(parquet, columns={"image": "imge"}))
    with pytest.raises(ValueError, match="filters need Parquet files"):
        _captions(_stream(saved, filters=filters))


def test_stream_of_the_hub(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _hub(monkeypatch, parquet)
    stream = HuggingFaceStream(
        name="toy", path="owner/name", revision=COMMIT, split="train", filters=[("label", "==", 1)], shuffle_buffer=1
    )
    assert len(_captions(stream)) == 10
    assert asked[0] == {"path": "owner/name", "name": None, "revision": COMMIT}
    assert "filters" in asked[-1]


def test_a_truncated_shard_of_a_stream(parquet: Path) -> None:
    path = parquet / "data" / "train-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    stream = _stream(parquet, columns={"caption": "text"}, shuffle_shards=False, shuffle_buffer=1)
    head = stream.stream(epoch=0, shard=0, shards=1)
    found: list[object] = [next(head).fields["caption"] for _ in range(10)]
    with pytest.raises(SampleFormatError, match="truncated or corrupted"):
        next(head)
    found += _captions(stream)
    assert found == [f"größe {number}" for number in (*range(10), *range(17, 30))]


def test_cifar10_as_it_is(shared_data: Path) -> None:
    source = _source(shared_data / "CIFAR10", split="test")
    assert len(source) == 10_000
    assert source.class_names() is not None
    stream = HuggingFaceStream(name="cifar10", path=str(shared_data / "CIFAR10"), split="train", shuffle_buffer=50)
    assert stream.shard_count() == 5
    head = list(islice(stream.stream(epoch=0, shard=0, shards=5), 5))
    assert all(sample.fields["image"][:2] == b"\xff\xd8" for sample in head)  # pyright: ignore[reportIndexIssue]
