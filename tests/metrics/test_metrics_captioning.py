from __future__ import annotations

import pytest
import torch

from neurotrain.metrics import BLEUScore, CIDErScore, ROUGELScore
from neurotrain.metrics.captioning import CaptionReport

PREDS = ["A cat sits on the mat.", "two dogs run", "a bus", "birds fly over a lake"]
TARGET = [["a cat sits on a mat", "cat on mat"], ["Two dogs run!"], ["a red bus drives", "one bus"], ["a plane"]]
IDS = ["b", "a", "d", "c"]


def test_figures_are_those_of_the_metrics_and_an_image_counts_once() -> None:
    report = CaptionReport()
    report.update(PREDS[:3], TARGET[:3], ids=IDS[:3])
    report.update([*PREDS[3:], "something else"], [*TARGET[3:], TARGET[0]], ids=[*IDS[3:], "b"])
    figures = report.compute()
    metrics = {
        f"bleu{order}": BLEUScore(max_order=order, tokenizer="rouge", lowercase=True, smoothing="none")
        for order in (1, 4)
    } | {
        "rouge_l": ROUGELScore(definition="coco"),
        "cider_d": CIDErScore(tokenizer="rouge"),
    }
    for name, metric in metrics.items():
        metric.update(PREDS, TARGET)
        torch.testing.assert_close(figures[name], metric.compute())
    rows = report.rows()
    assert [row["id"] for row in rows] == sorted(IDS)
    assert rows[1]["caption"] == PREDS[0]
    assert rows[1]["references"] == "a cat sits on a mat | cat on mat"
    assert sum(float(row["cider_d"]) for row in rows) / 4 == pytest.approx(float(figures["cider_d"]))


def test_nothing_is_nan_and_one_id_for_two_images_is_refused() -> None:
    report = CaptionReport()
    report.update([], [], ids=[])
    assert all(torch.isnan(value) for value in report.compute().values())
    assert report.rows() == []
    report.update(["a", "b"], [["a"], ["b"]], ids=["x", "x"])
    with pytest.raises(ValueError, match="two different images"):
        report.compute()
    with pytest.raises(ValueError, match="tokenizer"):
        CaptionReport(tokenizer="words")  # pyright: ignore[reportArgumentType]
