from __future__ import annotations

import pytest
import torch
from torch import nn

from neurotrain.inference import grad_cam
from neurotrain.networks.classification import ResNetSmall, Timm


class _TwoChannels(nn.Module):
    """The first channel speaks for class 0, the second for class 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).mean((2, 3))


def test_by_hand() -> None:
    image = torch.zeros(1, 2, 2, 2)
    image[0, 0, 0, 0], image[0, 0, 0, 1], image[0, 1, 1, 1] = 4.0, 1.0, 3.0
    network = _TwoChannels()
    first = grad_cam(network, network.layer, image, torch.tensor([0]))
    torch.testing.assert_close(first, torch.tensor([[[1.0, 0.25], [0.0, 0.0]]]))
    second = grad_cam(network, network.layer, image, torch.tensor([1]))
    torch.testing.assert_close(second, torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]))
    nothing = grad_cam(network, network.layer, -image, torch.tensor([0]))
    assert not nothing.any()


def test_it_works_in_inference_mode_and_leaves_gradients_and_hooks_alone() -> None:
    torch.manual_seed(0)
    network = ResNetSmall(widths=(4, 8), blocks=(1, 1), zero_init=False).eval()
    plain, classes = torch.randn(2, 3, 16, 16), torch.tensor([1, 2])
    wanted = grad_cam(network, network.evidence_layer(), plain, classes)
    with torch.inference_mode():
        image = plain.clone()
        found = grad_cam(network, network.evidence_layer(), image, classes.clone())
    torch.testing.assert_close(found.clone(), wanted)
    assert wanted.shape == (2, 16, 16)
    assert wanted.min() >= 0
    assert wanted.max() <= 1
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.evidence_layer()._forward_hooks


def test_a_layer_without_a_map_is_refused() -> None:
    network = Timm(name="test_vit", num_classes=3).eval()
    with pytest.raises(ValueError, match="VisionTransformer of timm has no map"):
        network.evidence_layer()
    with pytest.raises(ValueError, match="needs"):
        grad_cam(network, network.network.get_submodule("blocks.5"), torch.randn(1, 3, 160, 160), torch.tensor([0]))


def test_maps_with_channels_last_are_not_taken_for_others() -> None:
    import timm

    network = Timm(name="test_resnet", num_classes=3)
    network.network = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1, 1))
    with pytest.raises(ValueError, match="SwinTransformer of timm has no map of features"):
        network.evidence_layer()
