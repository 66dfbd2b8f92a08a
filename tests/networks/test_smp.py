"""Adapter to segmentation-models-pytorch; random weights only, nothing is downloaded."""

from __future__ import annotations

import sys
from typing import get_args, get_type_hints

import pytest
import torch
import torch.nn.functional as F

from neurotrain.networks import SmpNetwork
from neurotrain.networks.smp import Architecture, resolve_encoder

smp = pytest.importorskip("segmentation_models_pytorch", reason='needs pip install "neurotrain[smp]"')


def test_architectures_are_those_of_the_library() -> None:
    assert set(get_args(Architecture)) <= {cls.__name__ for cls in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    assert get_type_hints(SmpNetwork.__init__)["architecture"] == Architecture


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_every_architecture_takes_any_size(architecture: Architecture) -> None:
    encoder = "tu-test_vit" if architecture == "DPT" else "tu-test_resnet"
    network = SmpNetwork(architecture=architecture, encoder=encoder, in_channels=2, out_channels=3).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 2, 37, 70)).shape == (1, 3, 37, 70)


def test_parity_with_the_library_where_no_padding_is_needed() -> None:
    torch.manual_seed(0)
    network = SmpNetwork(encoder="tu-test_resnet", out_channels=2).eval()
    peer = smp.Unet(encoder_name="tu-test_resnet", encoder_weights=None, classes=2).eval()
    peer.load_state_dict(network.network.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(network(image), peer(image))


def test_padding_repeats_the_edge_and_is_cropped() -> None:
    torch.manual_seed(0)
    network = SmpNetwork(encoder="tu-test_resnet").eval()
    image = torch.randn(1, 3, 33, 62)
    with torch.no_grad():
        padded = network.network(F.pad(image, (1, 1, 15, 16), mode="replicate"))
        assert torch.equal(network(image), padded[:, :, 15:48, 1:63])


def test_default_encoder_is_timm_resnet18() -> None:
    count = sum(p.numel() for p in SmpNetwork().network.encoder.parameters())
    assert count == 11_176_512  # torchvision's ResNet-18 (11 689 512) without its classifier of 512 * 1000 + 1000


@pytest.mark.parametrize(
    ("encoder", "weights", "expected"),
    [
        ("tu-resnet18", None, ("tu-resnet18", None)),
        ("tu-resnet18", "imagenet", ("tu-resnet18", True)),
        ("tu-resnet18", "tv_in1k", ("tu-resnet18.tv_in1k", True)),
        ("resnet18", "imagenet", ("resnet18", "imagenet")),
        ("resnet18", None, ("resnet18", None)),
    ],
)
def test_weights_are_resolved(encoder: str, weights: str | None, expected: tuple[str, str | bool | None]) -> None:
    assert resolve_encoder(encoder, weights) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "tu-resnt18"}, "encoder='tu-resnt18' is unknown; nearest: tu-resnet18"),
        ({"encoder": "resnet-18"}, "encoder='resnet-18' is unknown; nearest: resnet18"),
        ({"encoder": "tu-resnet18.a1_in1k"}, "nearest: tu-resnet18"),
        ({"encoder_weights": "a9"}, "encoder_weights of tu-resnet18='a9' is unknown; valid: a1_in1k"),
        ({"encoder": "resnet18", "encoder_weights": "imagnet"}, "nearest: imagenet"),
        ({"architecture": "Unett"}, "architecture='Unett' is unknown; did you mean 'Unet'"),
        ({"architecture": "DPT", "encoder": "resnet18"}, "encoder='resnet18' does not go with architecture='DPT'"),
        ({"encoder": "tu-test_vit"}, "encoder='tu-test_vit' does not go with architecture='Unet'"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmpNetwork(**settings)  # type: ignore[arg-type]


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ImportError, match=r'pip install "neurotrain\[smp\]"'):
        SmpNetwork()
