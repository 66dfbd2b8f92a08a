"""Post-processing of predicted masks: each step by hand, in every mode, inside the field of view, by its name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from callback_toys import Fixed, make_trainer
from PIL import Image
from torch import Tensor, nn

import neurotrain
from neurotrain.callbacks import SegmentationPredictions
from neurotrain.inference import FullImage, MaskCleaning
from neurotrain.losses import BinaryCrossEntropyLoss
from neurotrain.tasks import Constant, SegmentationTask

DRAWN = torch.tensor(
    [
        [1, 1, 1, 0, 0, 0, 1],
        [1, 0, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0],
    ]
)
"""A ring with a hole, a single pixel, a line, and two pieces with a gap of one between them."""


class Shown(nn.Module):
    """The image's channels as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x - 0.5)


def _written(folder: Path, cleaning: MaskCleaning | None, *, valid: Tensor | None = None, **task: Any) -> np.ndarray:  # noqa: ANN401
    settings = {"mode": "binary", "num_classes": 1, **task}
    channels = settings["num_classes"]
    module = SegmentationTask(
        network=Shown(),
        loss=BinaryCrossEntropyLoss(mode="binary"),
        optimizer=partial(torch.optim.SGD, lr=1e-3),
        schedule=Constant(),
        inferer=FullImage(divisor=1),
        threshold=None if settings["mode"] == "multiclass" else 0.5,
        **settings,
    )
    first = DRAWN.float()
    image = torch.stack([first, 1 - first][:channels]) if channels < 3 else torch.stack([0.4 * first, first, 0 * first])
    if channels == 3:
        image[0] = 1 - first  # class 1 where it is drawn, class 0 elsewhere
    valid = torch.ones(5, 7, dtype=torch.bool) if valid is None else valid
    batch = {
        "image": image[None],
        "mask": torch.zeros(1, 5, 7, dtype=torch.long),
        "valid": valid[None],
        "id": ["a"],
        "source": ["toy"],
    }
    callback = SegmentationPredictions(cleaning=cleaning)
    make_trainer(folder, [callback], enable_checkpointing=False).predict(module, Fixed([batch]))
    name = "a" if settings["mode"] != "multilabel" else f"a_{settings['class_names'][0]}"
    with Image.open(folder / "predictions" / f"{name}.png") as picture:
        return np.array(picture)


def _expected(change: dict[tuple[int, int], int]) -> Tensor:
    wanted = DRAWN.clone()
    for place, value in change.items():
        wanted[place] = value
    return wanted


ALL_BUT_THE_RING = {tuple(place): 0 for place in DRAWN.nonzero().tolist() if place[0] > 2 or place[1] > 2}


@pytest.mark.parametrize(
    ("cleaning", "wanted"),
    [
        (None, DRAWN),
        (MaskCleaning(min_size=2), _expected({(0, 6): 0})),
        (MaskCleaning(fill=True), _expected({(1, 1): 1})),
        (MaskCleaning(largest=True), _expected(ALL_BUT_THE_RING)),  # pyright: ignore
        (MaskCleaning(largest=True, fill=True), _expected(ALL_BUT_THE_RING | {(1, 1): 1})),  # pyright: ignore
    ],
)
@pytest.mark.parametrize(
    "task",
    [
        {},
        {"mode": "multilabel", "num_classes": 2, "class_names": ("vessel", "rest")},
        {"mode": "multiclass", "num_classes": 3},
    ],
    ids=["binary", "multilabel", "multiclass"],
)
def test_what_is_written_is_cleaned(
    cleaning: MaskCleaning | None, wanted: Tensor, task: dict[str, Any], tmp_path: Path
) -> None:
    found = _written(tmp_path, cleaning, **task)
    one = 1 if task.get("mode") == "multiclass" else 255
    assert np.array_equal(found, (wanted * one).numpy())


def test_nothing_grows_out_of_the_field_of_view(tmp_path: Path) -> None:
    valid = torch.ones(5, 7, dtype=torch.bool)
    valid[1, 1] = False
    found = _written(tmp_path, MaskCleaning(fill=True), valid=valid)
    assert np.array_equal(found, (DRAWN * 255).numpy())


def test_opening_and_closing_are_steps_of_the_cleaning() -> None:
    bar = torch.zeros(1, 7, 9, dtype=torch.long)
    bar[0, 1:6, 0:3] = bar[0, 1:6, 4:7] = 1
    bar[0, 3, 8] = 1
    opened = MaskCleaning(opening=1)(bar)
    assert opened[0, 3, 8] == 0
    assert opened[0, 2:5, 1].all()
    closed = MaskCleaning(closing=1)(bar)
    assert closed[0, 3, 3] == 1
    assert torch.equal(closed[0, :, :3] >= bar[0, :, :3], torch.ones(7, 3, dtype=torch.bool))
    assert MaskCleaning(opening=1, closing=1)(bar)[0, 3, 3] == 1


def test_mistakes_are_named() -> None:
    for settings, message in (
        ({}, "clean nothing"),
        ({"opening": -1}, "opening=-1"),
        ({"closing": -2, "fill": True}, "closing=-2"),
    ):
        with pytest.raises(ValueError, match=message):
            MaskCleaning(**settings)


def test_it_is_chosen_by_name_on_the_command_line() -> None:
    config = neurotrain.compose("drive_unet", ["model/cleaning@callbacks.predictions.cleaning=pieces"])
    node = config.values["callbacks"]["predictions"]["cleaning"]
    assert (node["closing"], node["min_size"], node["fill"], node["largest"]) == (1, 30, True, False)
    assert neurotrain.compose("drive_unet").values["callbacks"]["predictions"]["cleaning"] is None
