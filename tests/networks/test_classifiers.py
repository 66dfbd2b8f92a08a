"""Classification networks: against timm, and what each promises."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from neurotrain.networks.classification import VGG, Classifier, ResNetSmall, Timm

MEMBERS = {
    "ResNetSmall": lambda **options: ResNetSmall(widths=(4, 8), blocks=(2, 1), **options),
    "Timm": lambda **options: Timm(name="test_resnet", **options),
    "VGG": lambda **options: VGG(widths=(4, 8), blocks=(1, 2), **options),
    "VGG pooled first": lambda **options: VGG(widths=(4, 8), blocks=(1, 2), stem=3, pool="first", **options),
}
members = pytest.mark.parametrize("build", MEMBERS.values(), ids=MEMBERS.keys())


@members
def test_logits_gradients_and_depths_of_every_parameter(build: object) -> None:
    torch.manual_seed(0)
    network = build(num_classes=3, in_channels=2)  # pyright: ignore
    assert isinstance(network, Classifier)
    assert network.num_classes == 3
    logits = network(torch.randn(2, 2, 64, 64))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    depths = network.depths()
    assert set(depths) == {name for name, _ in network.named_parameters()}
    assert set(depths.values()) == set(range(max(depths.values()) + 1))
    with pytest.raises(ValueError, match=r"expected \(batch, 2, height, width\)"):
        network(torch.zeros(1, 3, 64, 64))


def test_the_small_residual_network_is_timms_of_the_same_shape() -> None:
    from timm.models.resnet import BasicBlock, ResNet

    theirs = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=5, channels=(64, 8, 12, 16)).eval()
    # timm's stem is a 7x7 convolution and a pooling: ours in their place leaves the same blocks and head.
    ours = ResNetSmall(num_classes=5, widths=(64, 8, 12, 16), blocks=(1, 1, 1, 1), zero_init=False).eval()
    theirs.conv1, theirs.bn1, theirs.maxpool = copy.deepcopy(ours.stem), copy.deepcopy(ours.norm), nn.Identity()
    theirs.layer1 = nn.Sequential(theirs.layer1[0])
    renamed = {}
    for name, value in ours.state_dict().items():
        part, _, rest = name.partition(".")
        if part == "stages":
            number, _, rest = rest.partition(".")
            rest = rest.replace("norm", "bn").replace("shortcut", "downsample")
            renamed[f"layer{int(number) + 1}.0.{rest}"] = value
        else:
            renamed[{"stem": "conv1", "norm": "bn1", "head": "fc"}[part] + "." + rest] = value
    for buffer in ours.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    theirs.load_state_dict(renamed)
    image = torch.randn(2, 3, 33, 40)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-5, atol=1e-5)


def test_timm_is_timm_with_weights_from_a_local_file(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", num_classes=1000).eval()
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "weights.pth")
    image = torch.randn(2, 3, 64, 64)
    for file in ("weights.safetensors", "weights.pth"):
        ours = Timm(name="test_resnet", weights=str(tmp_path / file), num_classes=1000).eval()
        with torch.no_grad():
            assert torch.equal(ours(image), theirs(image))
    # Another head begins anew, everything else is the file's.
    other = Timm(name="test_resnet", weights=str(tmp_path / "weights.safetensors"), num_classes=3)
    assert torch.equal(other.network.get_parameter("conv1.0.weight"), theirs.get_parameter("conv1.0.weight"))


def test_depths_are_those_of_timms_layer_decay() -> None:
    from timm.optim import param_groups_layer_decay

    from neurotrain.tasks import layer_groups

    network = Timm(name="test_vit", num_classes=3)
    theirs = {
        id(parameter): group["lr_scale"]
        for group in param_groups_layer_decay(network.network, layer_decay=0.7)
        for parameter in group["params"]
    }
    ours = {
        id(parameter): group["lr_scale"]
        for group in layer_groups(network, network.depths(), decay=0.7)
        for parameter in group["params"]
    }
    assert ours == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Timm(name="resnet81"), "resnet18"),
        (lambda: ResNetSmall(widths=(4, 8), blocks=(1,)), "as many blocks"),
        (lambda: VGG(pool="frist"), "did you mean 'first'"),  # pyright: ignore[reportArgumentType]
        (lambda: VGG(stem=-1), "stem=-1"),
    ],
)
def test_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # pyright: ignore


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        Timm(name="test_resnet", weights=str(tmp_path / "none.safetensors"))
    torch.save({"conv9.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="test_resnet"):
        Timm(name="test_resnet", weights=str(tmp_path / "other.pth"))


def test_the_plain_network_is_torchvisions_of_the_same_shape() -> None:
    from torchvision.models.vgg import make_layers

    theirs = make_layers([4, "M", 6, "M", 8, 8, "M"], batch_norm=True).eval()
    ours = VGG(widths=(4, 6, 8), blocks=(1, 1, 2), num_classes=3).eval()
    layers = [layer for layer in theirs if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    own = [layer for layer in ours.stages.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    for layer, reference in zip(own, layers, strict=True):
        if isinstance(reference, nn.Conv2d):
            assert reference.bias is not None
            nn.init.zeros_(reference.bias)
            layer.weight.data.copy_(reference.weight)
    image = torch.randn(1, 3, 40, 33)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), ours.head(theirs(image).mean((2, 3))))
    with pytest.raises(ValueError, match="at least 8 pixels"):
        ours(torch.zeros(1, 3, 7, 40))


def test_a_pool_after_the_first_convolution_halves_what_the_others_of_the_stage_see() -> None:
    network = VGG(widths=(4, 8), blocks=(2, 1), stem=3, pool="first").eval()
    seen: dict[int, tuple[int, ...]] = {}
    for index, layer in enumerate(layer for layer in network.modules() if isinstance(layer, nn.Conv2d)):
        layer.register_forward_hook(
            lambda _, inputs, out, index=index: seen.update({index: tuple(inputs[0].shape[1:])})
        )
    network(torch.zeros(1, 3, 16, 16))
    assert seen == {0: (3, 16, 16), 1: (3, 16, 16), 2: (4, 8, 8), 3: (4, 8, 8)}
