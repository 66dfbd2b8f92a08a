"""torchvision's classification networks: their weights, another head, other channels, layers, evidence."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neurotrain.inference import grad_cam
from neurotrain.networks.classification import Torchvision

NAME = "squeezenet1_1"


def test_it_is_torchvisions_with_weights_from_local_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=7).eval()
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "weights.pth")
    image = torch.randn(1, 3, 32, 32)
    for file in ("weights.safetensors", "weights.pth"):
        ours = Torchvision(name="shufflenet_v2_x0_5", weights=str(tmp_path / file), num_classes=7).eval()
        with torch.no_grad():
            assert torch.equal(ours(image), theirs(image))


def test_another_head_begins_anew_and_other_channels_see_the_same_in_a_grey_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=7).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    grey = torch.randn(1, 1, 32, 32)
    outputs: list[Tensor] = []
    theirs.fc.register_forward_pre_hook(lambda _, given: outputs.append(given[0]))
    for channels in (1, 3, 4):
        with caplog.at_level(logging.WARNING):
            ours = Torchvision(
                name="shufflenet_v2_x0_5", weights=str(tmp_path / "weights.pth"), num_classes=3, in_channels=channels
            ).eval()
        assert "begin anew: fc.weight, fc.bias" in caplog.text
        ours.network.get_submodule("fc").register_forward_pre_hook(lambda _, given: outputs.append(given[0]))
        with torch.no_grad():
            theirs(grey.expand(-1, 3, -1, -1))
            assert ours(grey.expand(-1, channels, -1, -1)).shape == (1, 3)
        torch.testing.assert_close(outputs[-1], outputs[-2], rtol=1e-4, atol=1e-5)


def test_torchvisions_own_weights_are_checked_and_read_without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    asked: list[dict[str, object]] = []

    def download(url: str, **options: object) -> dict[str, Tensor]:
        asked.append({"url": url, **options})
        return models.get_model(NAME, weights=None).state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    Torchvision(name=NAME, weights="IMAGENET1K_V1", num_classes=1000)
    assert asked[0]["weights_only"] is True
    assert asked[0]["check_hash"] is True
    assert str(asked[0]["url"]).endswith(".pth")


@pytest.mark.parametrize("name", [NAME, "shufflenet_v2_x0_5", "mobilenet_v3_small", "vit_b_32", "swin_t"])
def test_depths_are_of_every_parameter_and_rise_to_the_head(name: str) -> None:
    with torch.device("meta"):
        network = Torchvision(name=name, num_classes=3)
    depths = network.depths()
    names = [parameter for parameter, _ in network.named_parameters()]
    assert set(depths) == set(names)
    values = [depths[parameter] for parameter in names]
    assert depths[names[-1]] == max(values) >= 5
    assert set(values) == set(range(max(values) + 1))


def test_residual_stages_are_layers_in_their_order() -> None:
    with torch.device("meta"):
        depths = Torchvision(name="resnet18").depths()
    order = ["conv1", "layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "layer4.1.conv1", "fc"]
    assert [depths[f"network.{part}.weight"] for part in order] == [0, 1, 2, 3, 8, 9]
    assert depths["network.bn1.weight"] == 0


def test_evidence_is_a_map_or_refused() -> None:
    torch.manual_seed(0)
    network = Torchvision(name=NAME, num_classes=3).eval()
    assert grad_cam(network, network.evidence_layer(), torch.randn(1, 3, 64, 64), torch.tensor([1])).shape == (
        1,
        64,
        64,
    )
    with pytest.raises(ValueError, match="does not show its attention"):
        network.token_layout()
    with torch.device("meta"), pytest.raises(ValueError, match="no last map"):
        Torchvision(name="vit_b_32").evidence_layer()


def test_mistakes_are_named(tmp_path: Path) -> None:
    torch.save({"other.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for call, kind, message in (
        (lambda: Torchvision(name="resnet81"), ValueError, "resnet18"),
        (lambda: Torchvision(name="inception_v3"), ValueError, "further logits"),
        (lambda: Torchvision(name="maskrcnn_resnet50_fpn"), ValueError, "no classification network"),
        (lambda: Torchvision(name=NAME, weights="IMAGENET"), FileNotFoundError, "IMAGENET1K_V1"),
        (lambda: Torchvision(name=NAME, weights=str(tmp_path / "other.pth")), ValueError, "not those of SqueezeNet"),
        (lambda: Torchvision(name=NAME)(torch.zeros(1, 1, 64, 64)), ValueError, "expected"),
    ):
        with pytest.raises(kind, match=message):
            call()
