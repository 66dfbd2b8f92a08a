"""What every loss of ``neurotrain.losses.__all__`` promises, in every mode that it has, 2-D and 3-D."""

from __future__ import annotations

import inspect
import pickle
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import neurotrain.losses as losses
from neurotrain.losses import DeepSupervisionLoss, SegmentationLoss, WeightedSum, functional

CHANNELS = {"binary": 1, "multiclass": 3, "multilabel": 2}
SPATIAL = {"2d": (6, 7), "3d": (4, 5, 6)}
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "BinaryCrossEntropyLoss": functional.binary_cross_entropy,
    "BoundaryLoss": functional.boundary_loss,
    "CenterlineDiceLoss": functional.centerline_dice_loss,
    "CrossEntropyLoss": functional.cross_entropy,
    "DiceLoss": functional.dice_loss,
    "FocalLoss": functional.focal_loss,
    "TverskyLoss": functional.tversky_loss,
}
# Options off their defaults, in every mode that has them.
OPTIONS: dict[str, list[dict[str, typing.Any]]] = {
    "BinaryCrossEntropyLoss": [{}, {"label_smoothing": 0.2}],
    "BoundaryLoss": [{}],
    "CenterlineDiceLoss": [{}, {"iterations": 1, "per_sample": True}],
    "CrossEntropyLoss": [{}, {"label_smoothing": 0.2}],
    "DiceLoss": [{}, {"per_sample": True, "smooth": 1e-5}],
    "FocalLoss": [{}, {"gamma": 0.5}],
    "TverskyLoss": [{}, {"gamma": 0.75, "per_sample": True}],
}


@dataclass(frozen=True)
class Case:
    loss: SegmentationLoss
    mode: str
    spatial: tuple[int, ...]

    def draw(self, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        channels = CHANNELS[self.mode]
        logits = torch.randn(2, channels, *self.spatial, generator=generator) * 2
        labels = 2 if self.mode != "multiclass" else channels
        axis = (channels,) if self.mode == "multilabel" else ()
        target = torch.randint(labels, (2, *axis, *self.spatial), generator=generator)
        return logits, target, torch.rand(2, *self.spatial, generator=generator) > 0.3


def concrete() -> list[type[SegmentationLoss]]:
    members = [getattr(losses, name) for name in losses.__all__]
    return [member for member in members if not inspect.isabstract(member)]


def modes_of(loss: type[SegmentationLoss]) -> tuple[str, ...]:
    return typing.get_args(typing.get_type_hints(loss.__init__)["mode"])


def class_weights_of(name: str, mode: str) -> tuple[float, ...] | None:
    if mode != "binary":
        return (0.5, 2.0, 1.0)[: CHANNELS[mode]]
    return (0.5, 2.0) if name in {"BinaryCrossEntropyLoss", "FocalLoss"} else None


def built() -> Iterator[tuple[str, str, SegmentationLoss]]:
    for cls in concrete():
        name = cls.__name__
        if cls is DeepSupervisionLoss:
            for mode in CHANNELS:
                yield f"{name}-{mode}-", mode, DeepSupervisionLoss(loss=losses.DiceLoss(mode=mode))  # type: ignore[arg-type]
            continue
        if cls is WeightedSum:
            for mode in CHANNELS:
                terms = {"dice": losses.DiceLoss(mode=mode), "focal": losses.FocalLoss(mode=mode)}  # type: ignore[arg-type]
                yield f"{name}-{mode}-", mode, WeightedSum(losses=terms, weights={"dice": 0.5, "focal": 2})
            continue
        for mode in modes_of(cls):
            weights = class_weights_of(name, mode)
            variants = [*OPTIONS[name], {"class_weights": weights}] if weights else OPTIONS[name]
            for options in variants:
                label = ",".join(f"{key}={value}" for key, value in options.items())
                yield f"{name}-{mode}-{label}", mode, cls(mode=mode, **options)  # type: ignore[call-arg]


CASES = [
    pytest.param(Case(loss, mode, spatial), id=f"{label}-{axes}")
    for label, mode, loss in built()
    for axes, spatial in SPATIAL.items()
    if axes == "2d" or label.endswith("-")  # volumes with each loss's defaults
]
every_case = pytest.mark.parametrize("case", CASES)


def value_and_gradient(
    loss: SegmentationLoss, logits: Tensor, target: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, target, valid)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def poisoned(case: Case, poison: float) -> tuple[Tensor, Tensor, Tensor]:
    logits, target, valid = case.draw()
    logits = torch.where(valid.unsqueeze(1), logits, poison)
    keep = valid.unsqueeze(1) if case.mode == "multilabel" else valid
    return logits, torch.where(keep, target, 255), valid


def test_every_loss_has_cases() -> None:
    assert len(concrete()) == 9
    assert set(OPTIONS) | {"DeepSupervisionLoss", "WeightedSum"} == {cls.__name__ for cls in concrete()}
    assert sorted(losses.__all__) == losses.__all__


@pytest.mark.parametrize("cls", concrete(), ids=lambda cls: cls.__name__)
def test_constructor_is_typed_and_keyword_only(cls: type[SegmentationLoss]) -> None:
    parameters = list(inspect.signature(cls).parameters.values())
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    assert {parameter.name for parameter in parameters} <= set(typing.get_type_hints(cls.__init__))


@every_case
def test_scalar_is_finite_and_gradient_reaches_counted_pixels(case: Case) -> None:
    logits, target, valid = case.draw()
    value, gradient = value_and_gradient(case.loss, logits, target, valid)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    # Not all of them: on a border the distance is 0, and a minimum passes gradient to one pixel only.
    reached = (gradient != 0).any(1)
    assert reached[valid].float().mean() > 0.5


@every_case
def test_masked_pixels_change_nothing(case: Case) -> None:
    logits, target, valid = case.draw()
    value, gradient = value_and_gradient(case.loss, logits, target, valid)
    assert (gradient.movedim(1, 0)[:, ~valid] == 0).all()
    for poison in (float("nan"), float("inf"), -float("inf"), 1e30):
        value_p, gradient_p = value_and_gradient(case.loss, *poisoned(case, poison))
        assert torch.equal(value, value_p)
        assert torch.equal(gradient, gradient_p)


@every_case
def test_all_masked_is_zero_with_zero_gradient(case: Case) -> None:
    logits, target, valid = case.draw()
    nothing = torch.zeros_like(valid)
    for seen in (logits, torch.full_like(logits, float("nan"))):
        value, gradient = value_and_gradient(case.loss, seen, torch.full_like(target, 255), nothing)
        assert value.item() == 0
        assert (gradient == 0).all()


@every_case
def test_one_masked_sample_is_left_out(case: Case) -> None:
    logits, target, valid = case.draw()
    valid[1] = False
    both = case.loss(logits, target, valid)
    torch.testing.assert_close(both, case.loss(logits[:1], target[:1], valid[:1]))


@every_case
def test_full_mask_equals_no_mask(case: Case) -> None:
    logits, target, valid = case.draw()
    masked = value_and_gradient(case.loss, logits, target, torch.ones_like(valid))
    torch.testing.assert_close(masked, value_and_gradient(case.loss, logits, target, None))


@every_case
def test_counted_nan_is_not_hidden(case: Case) -> None:
    logits, target, valid = case.draw()
    logits[0, :, 0, 0] = float("nan")
    valid[0, 0, 0] = True
    assert torch.isnan(case.loss(logits, target, valid))


@every_case
def test_good_prediction_beats_bad_one(case: Case) -> None:
    _, target, valid = case.draw()
    classes = torch.arange(CHANNELS[case.mode]).view(1, -1, *[1] * len(case.spatial))
    if case.mode == "multiclass":
        truth = target.unsqueeze(1) == classes
    else:
        truth = (target if case.mode == "multilabel" else target.unsqueeze(1)) == 1
    good = torch.where(truth, 20.0, -20.0)
    assert case.loss(good, target, valid) < case.loss(-good, target, valid) - 0.1


@every_case
def test_half_precision_is_reduced_in_fp32(case: Case) -> None:
    logits, target, valid = case.draw()
    for dtype in (torch.bfloat16, torch.float16):
        half = logits.to(dtype)
        value, gradient = value_and_gradient(case.loss, half, target, valid)
        assert value.dtype == torch.float32
        assert gradient.dtype == dtype
        assert torch.equal(value, case.loss(half.float(), target, valid))


@every_case
def test_autocast_does_not_touch_it(case: Case) -> None:
    logits, target, valid = case.draw()
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = value_and_gradient(case.loss, logits, target, valid)
    plain, plain_gradient = value_and_gradient(case.loss, logits, target, valid)
    assert torch.equal(value, plain)
    assert torch.equal(gradient, plain_gradient)


@every_case
def test_double_stays_double(case: Case) -> None:
    logits, target, valid = case.draw()
    value = case.loss(logits.double(), target, valid)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value.float(), case.loss(logits, target, valid), rtol=1e-4, atol=1e-5)


@every_case
def test_gradient_agrees_with_finite_differences(case: Case) -> None:
    logits, target, valid = case.draw(seed=1)
    probe = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    # Along one random direction: all pixels at once, and no cost of one forward pass per pixel.
    assert torch.autograd.gradcheck(lambda t: case.loss(logits.double() + t * probe, target, valid), (step,), atol=1e-6)


@every_case
def test_label_types_agree(case: Case) -> None:
    logits, target, valid = case.draw()
    value = case.loss(logits, target, valid)
    for dtype in (torch.uint8, torch.int32):
        assert torch.equal(case.loss(logits, target.to(dtype), valid), value)
    if case.mode != "multiclass":
        assert torch.equal(case.loss(logits, target.bool(), valid), value)


@every_case
def test_memory_layout_does_not_matter(case: Case) -> None:
    logits, target, valid = case.draw()
    layout = torch.channels_last if len(case.spatial) == 2 else torch.channels_last_3d
    torch.testing.assert_close(
        case.loss(logits.contiguous(memory_format=layout), target, valid), case.loss(logits, target, valid)
    )


@every_case
def test_pickles_and_keeps_weights_out_of_the_state(case: Case) -> None:
    logits, target, valid = case.draw()
    copy = pickle.loads(pickle.dumps(case.loss))
    assert torch.equal(copy(logits, target, valid), case.loss(logits, target, valid))
    assert case.loss.state_dict() == {}
    assert list(case.loss.parameters()) == []


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_module_equals_function(name: str) -> None:
    cls: type[SegmentationLoss] = getattr(losses, name)
    for mode in modes_of(cls):
        case = Case(cls(mode=mode), mode, SPATIAL["2d"])  # type: ignore[call-arg]
        logits, target, valid = case.draw()
        for options in (*OPTIONS[name], {"class_weights": class_weights_of(name, mode)}):
            module = cls(mode=mode, **options)  # type: ignore[call-arg]
            expected = FUNCTIONS[name](logits, target, mode=mode, valid=valid, **options)
            assert torch.equal(module(logits, target, valid), expected)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_module_and_function_have_the_same_defaults(name: str) -> None:
    module = inspect.signature(getattr(losses, name)).parameters
    function = inspect.signature(FUNCTIONS[name]).parameters
    shared = {key: parameter.default for key, parameter in module.items()}
    assert shared == {key: function[key].default for key in module}
    assert set(function) - set(module) == {"logits", "target", "valid"}
