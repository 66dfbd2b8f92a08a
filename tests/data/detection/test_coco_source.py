"""COCO's layout: numbers to labels and back, what is kept, and every mistake told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coco_files
import numpy as np
import pytest
import torch
from PIL import Image

from neurotrain.app.data_commands import load_data
from neurotrain.batch import Category
from neurotrain.data import DetectionDataModule
from neurotrain.data.datasets import DatasetError
from neurotrain.data.datasets.coco_masks import compressed_masks, draw_masks
from neurotrain.data.decoders import Decoder
from neurotrain.data.detection import CocoSource, DetectionDecoder
from neurotrain.data.inspection import preview, stats, verify
from neurotrain.data.sources import FolderSource, SampleFormatError, SourceError
from neurotrain.storage import LocalStorage, MemoryStorage, ObjectNotFoundError

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return coco_files.write_coco(tmp_path / "coco")


def _source(root: Path, **changes: Any) -> CocoSource:  # noqa: ANN401
    source = CocoSource(storage=LocalStorage(root=root), **changes)
    source.setup()
    return source


def _sample(source: CocoSource, index: int, *, masks: bool = False) -> Any:  # noqa: ANN401
    return DetectionDecoder(masks=masks)(source.read(index), torch.Generator())


def _changed(root: Path, change: Change) -> None:
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_sparse_categories_become_labels_in_the_order_of_their_numbers(root: Path) -> None:
    source = _source(root)
    assert source.categories() == (Category(3, "red"), Category(18, "green"), Category(90, "blue"))
    first = _sample(source, 0)
    assert first["id"] == "100"
    assert first["labels"].tolist() == [0, 2]
    assert first["boxes"].tolist() == [[6.0, 8.0, 26.0, 24.0], [36.0, 20.0, 54.0, 42.0]]
    assert first["boxes"].dtype == first["area"].dtype == torch.float64
    assert first["area"].tolist() == [320.0, 396.0]
    assert first["image"].shape == (3, 48, 64)
    assert first["size"].tolist() == [48, 64]
    assert first["image"][:, 10, 10].tolist() == list(coco_files.COLOURS[3])


def test_images_without_objects_and_crowds_are_kept(root: Path) -> None:
    source = _source(root)
    assert source.table().select(["id", "objects", "crowds"]).to_pydict() == {
        "id": ["100", "107", "114", "121"],
        "objects": [2, 2, 0, 2],
        "crowds": [0, 1, 0, 0],
    }
    empty, crowded = _sample(source, 2, masks=True), _sample(source, 1, masks=True)
    assert empty["boxes"].shape == (0, 4)
    assert empty["masks"].shape == (0, 48, 64)
    assert crowded["iscrowd"].tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools 2.0 under numpy 2
def test_polygons_and_both_kinds_of_runs_are_drawn_as_pycocotools_draws_them(root: Path) -> None:
    from pycocotools.coco import COCO

    source = _source(root)
    coco = COCO(str(root / "annotations" / "instances_train2017.json"))
    for index in (0, 1, 3):
        masks = _sample(source, index, masks=True)["masks"]
        wanted = [coco.annToMask(coco.anns[one["id"]]) for one in source.objects(index)]
        assert torch.equal(masks, torch.stack([torch.from_numpy(mask) for mask in wanted]))
        again = draw_masks(compressed_masks(masks), height=48, width=64)
        assert torch.equal(again, masks)


def test_a_slice_counts_in_the_order_of_numbers_and_changes_the_fingerprint(root: Path) -> None:
    whole, part = _source(root), _source(root, first=1, count=2)
    assert part.table()["id"].to_pylist() == ["107", "114"]
    assert part.categories() == whole.categories()
    assert len({whole.fingerprint(), part.fingerprint(), _source(root, first=1).fingerprint()}) == 3
    with pytest.raises(ValueError, match=r"first=3, count=2: .* has 4 images"):
        _source(root, first=3, count=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["annotations"][0].update(category_id=4), "annotation 501: of category 4, which is"),
        (lambda content: content["annotations"][0].update(image_id=5), "annotation 501: of image 5, which is not"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2, 3]), "annotation 501: the box .* four finite"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "four finite numbers"),
        (lambda content: content["annotations"][0].update(id=502), "annotation 502: appears twice"),
        (lambda content: content["annotations"][0].pop("bbox"), "annotation 501: lacks 'bbox'"),
        (lambda content: content["images"][0].pop("height"), "image 114: lacks 'height'"),
        (lambda content: content["images"][0].update(width="64"), r"image 114: height=48, width='64' are no numbers"),
        (lambda content: content["categories"].append({"id": 4, "name": "red"}), "category 'red': appears twice"),
        (lambda content: content.pop("categories"), "has no list 'categories'"),
    ],
)
def test_a_file_that_cannot_be_put_together_is_refused(root: Path, change: Change, message: str) -> None:
    _changed(root, change)
    with pytest.raises(DatasetError, match=message):
        _source(root)


def test_absent_files_are_told(root: Path) -> None:
    (root / "train2017" / "000107.png").unlink()
    with pytest.raises(SourceError, match=r"1 problem\s+train2017/000107.png: missing"):
        _source(root)
    with pytest.raises(ObjectNotFoundError, match="annotations=KEY says where"):
        _source(root, annotations="annotations/none.json")


def test_another_size_than_annotated_and_undrawable_masks_are_refused(root: Path) -> None:
    _changed(root, lambda content: content["images"][1].update(height=50))
    with pytest.raises(SampleFormatError, match="has 64 x 48 pixels, its annotations say 64 x 50"):
        _sample(_source(root), 0)
    _changed(root, lambda content: content["annotations"][2].update(segmentation=[[1.0, 2.0, 3.0, 4.0]]))
    assert _sample(_source(root), 1)["labels"].tolist() == [1, 0]
    with pytest.raises(SampleFormatError, match=r"object 0: .* is no polygon"):
        _sample(_source(root), 1, masks=True)


def test_verify_lists_bad_boxes_and_files_and_training_warns_of_empty_boxes(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert [report.broken for report in verify(_detection_data(root))] == [()]
    _changed(root, lambda content: content["annotations"][0].update(bbox=[6.0, 8.0, 0.0, 16.0]))
    _changed(root, lambda content: content["annotations"][4].update(bbox=[30.0, 6.0, 80.0, 18.0]))
    (root / "train2017" / "000107.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        (report,) = verify(_detection_data(root))
    assert "1 boxes have no area and are left out of training" in caplog.text
    reasons = {one.id: one.reason for one in report.broken}
    assert sorted(reasons) == ["100", "107", "121"]
    assert "annotation 501: the box [6.0, 8.0, 0.0, 16.0] has no area" in reasons["100"]
    assert "annotation 505: the box [30.0, 6.0, 80.0, 18.0] reaches out of 64 x 48 pixels" in reasons["121"]


def test_verify_works_on_the_shipped_configuration(root: Path) -> None:
    module = load_data("coco_detection", [f"data.{part}.storage.root={root}" for part in ("train", "test")])
    assert [(report.count, report.broken) for report in verify(module)] == [(4, ()), (4, ())]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools 2.0 under numpy 2
def test_the_real_thing_reads_as_pycocotools_has_it(shared_data: Path) -> None:
    from pycocotools.coco import COCO

    folder = shared_data / "COCO-MINI"
    source, coco = _source(folder), COCO(str(folder / "annotations" / "instances_train2017.json"))
    assert [category.id for category in source.categories()] == sorted(coco.cats)
    assert source.table()["id"].to_pylist() == [str(number) for number in sorted(coco.imgs)]
    for index in (0, 17, 63):
        sample = _sample(source, index, masks=True)
        wanted = coco.loadAnns(sorted(coco.getAnnIds([int(sample["id"])])))
        numbers = [source.categories()[label].id for label in sample["labels"].tolist()]
        assert numbers == [one["category_id"] for one in wanted]
        assert all(
            torch.equal(mask, torch.from_numpy(coco.annToMask(one)))
            for mask, one in zip(sample["masks"], wanted, strict=True)
        )


def _detection_data(root: Path, **changes: Any) -> DetectionDataModule:  # noqa: ANN401
    decoder: Decoder = DetectionDecoder()
    given = {"train": CocoSource(storage=LocalStorage(root=root)), "decoder": decoder, "batch_size": 2}
    return DetectionDataModule(**given | changes)


def test_batches_list_what_differs_in_shape_and_workers_change_nothing(root: Path) -> None:
    batches = []
    for workers in (0, 1):
        module = _detection_data(root, num_workers=workers)
        module.setup("fit")
        batches.append([[sample.tolist() for sample in batch["boxes"]] for batch in module.train_dataloader()])
        module.teardown("fit")
    assert batches[0] == batches[1]
    assert sorted(len(boxes) for batch in batches[0] for boxes in batch) == [0, 2, 2, 2]


def test_sources_of_other_categories_and_other_kinds_are_refused(root: Path, tmp_path: Path) -> None:
    other = coco_files.write_coco(tmp_path / "other")
    _changed(other, lambda content: content["categories"].append({"id": 4, "name": "dog"}))
    module = _detection_data(root, test=CocoSource(name="other", storage=LocalStorage(root=other)))
    module.setup("fit")
    with pytest.raises(ValueError, match=r"'coco' and 'other' differ in 1 categories, such as 4 'dog'"):
        module.setup("test")
    with pytest.raises(TypeError, match="DetectionDataModule is for CocoSource"):
        _detection_data(root, train=FolderSource(name="a", storage=MemoryStorage(name="detection-kinds")))


def test_statistics_count_objects_and_a_preview_frames_them(root: Path, tmp_path: Path) -> None:
    (report,) = stats(_detection_data(root))
    assert report.figures["labels"] == {0: 3, 1: 2, 2: 1}
    assert preview(_detection_data(root), tmp_path / "preview.png", count=4)[0].startswith("coco/")
    with Image.open(tmp_path / "preview.png") as sheet:
        frames = (np.asarray(sheet) == (255, 64, 0)).all(-1)
    assert frames.sum() > 6 * 2 * 36
