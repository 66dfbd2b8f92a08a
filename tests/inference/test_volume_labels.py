"""From probabilities of a prepared volume to the labels of a file; clean-up; what sliding windows keep."""

from __future__ import annotations

import pytest
import torch

from neurotrain.inference import MaskCleaning, SlidingWindow, labels_over
from neurotrain.inference import sliding_window as windows

BOX = torch.tensor([[1, 0, 2], [5, 4, 6]])
SIZE = torch.tensor([6, 4, 7])


def test_classes_are_decided_after_resampling_and_outside_is_background() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(5, 2, 3, 4, generator=generator)
    found = labels_over(probabilities, box=BOX, size=SIZE, mode="multiclass")
    assert found.shape == (6, 4, 7)
    assert found.dtype == torch.uint8
    whole = torch.nn.functional.interpolate(probabilities[None], size=(4, 4, 4), mode="trilinear")[0]
    assert torch.equal(found[1:5, :, 2:6], whole.argmax(0).byte())
    found[1:5, :, 2:6] = 0
    assert not found.any()


def test_regions_overlap_and_equals_are_not_above_the_threshold() -> None:
    probabilities = torch.full((2, 4, 4, 4), 0.5)
    probabilities[1] = 0.6
    found = labels_over(probabilities, box=BOX, size=SIZE, mode="multilabel")
    assert found.shape == (2, 6, 4, 7)
    assert not found[0].any()
    assert int(found[1].sum()) == 64
    assert not labels_over(probabilities, box=BOX, size=SIZE, mode="multilabel", threshold=0.7).any()


def test_more_classes_than_labels_have_values_are_refused() -> None:
    with pytest.raises(ValueError, match="256 at most"):
        labels_over(torch.zeros(257, 1, 1, 1), box=BOX, size=SIZE, mode="multiclass")


def test_cleaning_does_what_it_is_told_in_one_order() -> None:
    labels = torch.zeros(1, 7, 7, 9, dtype=torch.uint8)
    labels[0, 1:6, 1:6, 1:6] = 1
    labels[0, 3, 3, 3] = 0  # a hole
    labels[0, 0, 0, 8] = 1  # a speck
    cleaned = MaskCleaning(largest=True, fill=True)(labels)
    assert int(cleaned.sum()) == 125
    assert int(MaskCleaning(min_size=2)(labels).sum()) == 124
    assert cleaned.dtype == torch.uint8
    for settings in ({}, {"min_size": 0}, {"largest": True, "connectivity": 4}):
        with pytest.raises(ValueError, match="min_size"):
            MaskCleaning(**settings)  # type: ignore[arg-type]


def test_accumulating_on_the_cpu_gives_the_same() -> None:
    image = torch.rand(1, 1, 9, 12, 10)
    plain, there = (SlidingWindow(window=(4, 8, 4), accumulate_on=place) for place in ("image", "cpu"))
    assert torch.equal(plain(lambda x: x * 2, image), there(lambda x: x * 2, image))
    with pytest.raises(ValueError, match="accumulate_on"):
        SlidingWindow(window=(4,), accumulate_on="gpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.75])
def test_weights_summed_axis_by_axis_are_those_summed_window_by_window(overlap: float) -> None:
    weight = windows.window_weights((5, 4, 6), "gaussian", 0.2).double()
    expected = torch.zeros(13, 4, 15, dtype=torch.float64)
    for place in windows.window_slices((13, 4, 15), (5, 4, 6), overlap):
        expected[place] += weight
    torch.testing.assert_close(windows.total_weights((13, 4, 15), weight, overlap), expected)


def test_maps_of_weights_are_kept_up_to_a_limit_and_serve_gradients_after_inference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = windows._Kept()
    monkeypatch.setattr(windows, "_KEPT", kept)
    monkeypatch.setattr(windows, "KEPT_BYTES", 4 * (64 + 1000))
    infer, image = SlidingWindow(window=(4, 4, 4)), torch.rand(1, 1, 10, 10, 10)
    with torch.inference_mode():
        first = infer(torch.cos, image)
    assert len(kept._maps) == 2
    grown = image.clone().requires_grad_()
    infer(torch.cos, grown).sum().backward()
    assert grown.grad is not None
    assert torch.equal(infer(torch.cos, image), first)
    infer(torch.cos, torch.rand(1, 1, 10, 10, 9))
    assert sum(value.nbytes for value in kept._maps.values()) <= windows.KEPT_BYTES
