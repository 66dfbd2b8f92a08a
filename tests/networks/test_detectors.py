"""What every detector keeps, one suite over the family, and how weights are loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurotrain.networks import detection
from neurotrain.networks.detection import DetectionTarget, Detector, FasterRcnn, Fcos, MaskRcnn, RetinaNet

KINDS: dict[type[Detector], dict[str, Any]] = {
    Fcos: {"head_depth": 1, "channels": 64},
    RetinaNet: {},
    FasterRcnn: {"head_channels": 16, "finest_anchor": 8},
    MaskRcnn: {"head_channels": 16, "finest_anchor": 8, "mask_channels": 8},
}
kinds = pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.__name__)


def _build(kind: type[Detector], **changes: Any) -> Any:  # noqa: ANN401
    torch.manual_seed(0)
    small = {"backbone": "small", "channels": 32, "num_classes": 3, "min_size": 64, "max_size": 96}
    return kind(**small | KINDS[kind] | changes)


def _images() -> list[Tensor]:
    return [torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0)), torch.rand(3, 70, 50)]


def _targets(*, masks: bool) -> list[DetectionTarget]:
    one: DetectionTarget = {"boxes": torch.tensor([[4.0, 6.0, 30.0, 40.0]]), "labels": torch.tensor([2])}
    none: DetectionTarget = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    if masks:
        one["masks"] = torch.zeros(1, 48, 64, dtype=torch.uint8)
        one["masks"][0, 6:40, 4:30] = 1
        none["masks"] = torch.zeros(0, 70, 50, dtype=torch.uint8)
    return [one, none]


def test_every_member_is_tested() -> None:
    found = {name for name in detection.__all__ if isinstance(getattr(detection, name), type)}
    assert {kind.__name__ for kind in KINDS} == found - {"Detector", "Detection", "DetectionTarget"}


@kinds
def test_losses_of_images_with_and_without_objects_reach_every_parameter(kind: type[Detector]) -> None:
    network = _build(kind)
    losses = network.losses(_images(), _targets(masks=kind.predicts_masks))
    assert set(losses) == set(kind.loss_names)
    total = torch.stack(list(losses.values())).sum()
    assert total.isfinite()
    total.backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []
    empty = _targets(masks=kind.predicts_masks)[1:]
    assert all(value.isfinite() for value in network.losses(_images()[1:], empty).values())


@kinds
def test_detections_lie_in_the_pixels_of_the_given_image(kind: type[Detector]) -> None:
    network = _build(kind, score_threshold=0.0, max_detections=7).eval()
    with torch.no_grad():
        found = network(_images())
    for image, one in zip(_images(), found, strict=True):
        height, width = image.shape[-2:]
        assert 0 < len(one["scores"]) <= 7
        assert one["scores"].equal(one["scores"].sort(descending=True).values)
        assert one["boxes"].min() >= 0
        assert one["boxes"][:, 2].max() <= width
        assert one["boxes"][:, 3].max() <= height
        assert set(one["labels"].tolist()) <= {0, 1, 2}
        assert ("masks" in one) == kind.predicts_masks
        if kind.predicts_masks:
            assert one["masks"].shape == (len(one["scores"]), height, width)
            assert one["masks"].dtype == torch.bool


@kinds
def test_modes_and_labels_that_fit_nothing_are_refused(kind: type[Detector]) -> None:
    network = _build(kind)
    with pytest.raises(RuntimeError, match=r"call .eval\(\) first"):
        network(_images())
    wrong = _targets(masks=kind.predicts_masks)
    wrong[0]["labels"] = torch.tensor([3])
    with pytest.raises(ValueError, match=r"labels are \[3\]; num_classes=3 allows 0 to K - 1"):
        network.losses(_images(), wrong)
    with pytest.raises(RuntimeError, match=r"call .train\(\) first"):
        network.eval().losses(_images(), _targets(masks=kind.predicts_masks))


@kinds
def test_weights_come_from_safetensors_and_only_heads_may_begin_anew(
    kind: type[Detector], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import save_file

    source = _build(kind).network
    path = tmp_path / "detector.safetensors"
    save_file(source.state_dict(), path)
    same = _build(kind, weights=path).network.state_dict()
    assert all(torch.equal(value, same[name]) for name, value in source.state_dict().items())
    with caplog.at_level(logging.WARNING):
        other = _build(kind, weights=path, num_classes=5).network.state_dict()
    different = [name for name, value in source.state_dict().items() if value.shape != other[name].shape]
    assert different
    assert all(name in caplog.text for name in different)
    with pytest.raises(ValueError, match=r"have other shapes of"):
        _build(kind, weights=path, channels=96)
    lacking = {name: value for name, value in source.state_dict().items() if "layer3" not in name}
    save_file(lacking, path)
    with pytest.raises(ValueError, match=r"weights='.*' lack backbone.body.layer3"):
        _build(kind, weights=path)
    with pytest.raises(FileNotFoundError, match="weights="):
        _build(kind, weights=tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("kind", "builder", "classes"),
    [
        (Fcos, "fcos_resnet50_fpn", 3),
        (RetinaNet, "retinanet_resnet50_fpn", 3),
        (FasterRcnn, "fasterrcnn_resnet50_fpn", 4),
        (MaskRcnn, "maskrcnn_resnet50_fpn", 4),
    ],
)
def test_the_default_is_torchvisions_own_so_that_its_weights_fit(
    kind: type[Detector], builder: str, classes: int
) -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        theirs = get_model(builder, weights=None, weights_backbone=None, num_classes=classes)
        ours = kind(num_classes=3, norm="batch").network  # pyright: ignore
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    generators = [(net if classes == 3 else net.rpn).anchor_generator for net in (ours, theirs)]
    assert generators[0].sizes == generators[1].sizes
    assert generators[0].aspect_ratios == generators[1].aspect_ratios
    settings = [(net.transform.min_size, net.transform.max_size, net.transform.image_mean) for net in (ours, theirs)]
    assert settings[0] == settings[1]


def test_a_classifiers_weights_serve_a_frozen_backbone(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torchvision.models import resnet18

    classifier = resnet18()
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    path = tmp_path / "resnet18.safetensors"
    save_file(classifier.state_dict(), path)
    network = _build(Fcos, backbone="resnet18", norm="frozen", trainable_layers=2, backbone_weights=path)
    body = network.network.backbone.body
    assert torch.equal(body.layer1[0].bn1.running_mean, classifier.layer1[0].bn1.running_mean)
    frozen = {name.partition(".")[0] for name, value in body.named_parameters() if not value.requires_grad}
    assert frozen == {"conv1", "layer1", "layer2"}
    before = body.layer4[0].bn1.running_mean.clone()
    network.losses(_images(), _targets(masks=False))
    assert torch.equal(before, body.layer4[0].bn1.running_mean)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet5O"}, "nearest: 'resnet50'"),
        ({"backbone": "small", "norm": "batch"}, "norm='batch' has no effect on backbone='small'"),
        ({"backbone": "resnet18", "norm": "frozen"}, "random weights would be frozen"),
        ({"trainable_layers": 3}, "random weights would be frozen"),
        ({"num_classes": 0}, "num_classes=0: must be at least 1"),
        ({"max_size": 10}, "max_size=10 is below min_size=64"),
        ({"score_threshold": 1.5}, "score_threshold=1.5"),
        ({"channels": 40}, r"channels=40: need .* 64, 96, 128"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _build(Fcos, **changes)
