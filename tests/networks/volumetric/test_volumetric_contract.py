"""What every network for volumes promises, parametrised over the package's ``__all__``; parity with MONAI's own."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch

pytest.importorskip("monai")
pytest.importorskip("einops")

from neurotrain.networks import SegmentationOutput, volumetric
from neurotrain.networks.volumetric import DynUNet, MonaiUNet, SegResNet, SwinUNETR, VolumetricNetwork

SMALL: dict[str, dict[str, Any]] = {
    "DynUNet": {"channels": (4, 8, 8), "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2)), "deep_supervision": 1},
    "MonaiUNet": {"channels": (4, 8, 8), "res_units": 1},
    "SegResNet": {"width": 4, "blocks_down": (1, 1, 1), "blocks_up": (1, 1), "groups": 2},
    "SwinUNETR": {"width": 12, "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "window": 2},
}
MEMBERS = [getattr(volumetric, name) for name in volumetric.__all__]
NETWORKS: list[type[VolumetricNetwork]] = [member for member in MEMBERS if not inspect.isabstract(member)]

every = pytest.mark.parametrize("cls", NETWORKS, ids=lambda cls: cls.__name__)
# MONAI still asks NumPy and torch in older ways.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def build(cls: type[VolumetricNetwork], **settings: object) -> VolumetricNetwork:
    torch.manual_seed(0)
    return cls(**{**SMALL[cls.__name__], **settings})  # type: ignore[arg-type]


def size_of(network: VolumetricNetwork) -> tuple[int, ...]:
    first, *others = network.divisor
    return (max(2 * first, 8), *(max(step, 8) for step in others))


def test_all_are_tested() -> None:
    assert volumetric.__all__ == sorted(volumetric.__all__)
    assert {cls.__name__ for cls in NETWORKS} == set(SMALL)


@every
def test_logits_have_the_size_of_the_volume_and_gradients_reach_every_parameter(cls: type[VolumetricNetwork]) -> None:
    network = build(cls, in_channels=2, out_channels=3).train()
    image = torch.randn(2, 2, *size_of(network))
    output = network(image)
    heads = (output.logits, *output.aux) if isinstance(output, SegmentationOutput) else (output,)
    assert heads[0].shape == (2, 3, *image.shape[2:])
    torch.stack([head.square().mean() for head in heads]).sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []
    # After a step in training, too: nothing of a graph is left behind.
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        with torch.no_grad():
            assert torch.equal(twin.eval()(image), network.eval()(image))


@every
def test_wrong_volumes_are_refused_by_name(cls: type[VolumetricNetwork]) -> None:
    network = build(cls)
    size = size_of(network)
    for shape in ((1, 2, *size), size, (1, 1, *size[:2])):
        with pytest.raises(ValueError, match=r"expected \(batch, 1, x, y, z\)"):
            network(torch.zeros(shape))
    with pytest.raises(ValueError, match=rf"needs multiples of .*{cls.__name__}|{cls.__name__} needs multiples of"):
        network(torch.zeros(1, 1, size[0] + 1, *size[1:]))


@pytest.mark.parametrize("cls", [DynUNet, MonaiUNet, SwinUNETR])
def test_a_patch_that_leaves_one_voxel_to_normalise_is_refused(cls: type[VolumetricNetwork]) -> None:
    network = build(cls)
    with pytest.raises(ValueError, match="leaves a single voxel at the coarsest level"):
        network(torch.zeros(2, 1, *network.divisor))


def test_they_are_monais() -> None:
    from monai.networks import nets

    image = torch.randn(1, 1, 16, 16, 8)
    pairs = [
        (
            build(DynUNet),
            nets.DynUNet(
                3,
                1,
                2,
                kernel_size=[3, 3, 3],
                strides=[1, (2, 2, 1), 2],
                upsample_kernel_size=[(2, 2, 1), 2],
                filters=[4, 8, 8],
                deep_supervision=True,
            ),
        ),
        (build(MonaiUNet), nets.UNet(3, 1, 2, channels=(4, 8, 8), strides=(2, 2), num_res_units=1)),
        (
            build(SegResNet),
            nets.SegResNet(init_filters=4, blocks_down=(1, 1, 1), blocks_up=(1, 1), norm=("GROUP", {"num_groups": 2})),
        ),
    ]
    for ours, theirs in pairs:
        theirs.load_state_dict({name.removeprefix("network."): value for name, value in ours.state_dict().items()})
        with torch.no_grad():
            assert torch.equal(ours.eval()(image), theirs.eval()(image))


def test_coarse_heads_are_monais_before_it_enlarges_them() -> None:
    network = build(DynUNet).train()
    image = torch.randn(1, 1, 8, 8, 8)
    output = network(image)
    assert isinstance(output, SegmentationOutput)
    stacked = network.network(image)  # pyright: ignore
    torch.testing.assert_close(stacked[:, 0], output.logits)
    torch.testing.assert_close(stacked[:, 1], torch.nn.functional.interpolate(output.aux[0], size=(8, 8, 8)))


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (DynUNet, {"deep_supervision": 2}, "0 to 1 further heads"),
        (DynUNet, {"strides": ((1, 1, 1), (2, 2, 2))}, "for each of 3 channels"),
        (DynUNet, {"strides": ((2, 1, 1), (2, 2, 2), (2, 2, 2))}, "keeps the resolution"),
        (DynUNet, {"kernels": ((3, 3, 2), (3, 3, 3), (3, 3, 3))}, "odd"),
        (DynUNet, {"channels": (4, 8)}, "at least 3"),
        (MonaiUNet, {"channels": (4,)}, "at least 2"),
        (SegResNet, {"blocks_up": (1,)}, "one number less"),
        (SegResNet, {"groups": 3}, "must divide"),
        (SwinUNETR, {"width": 20}, "nearest: 24"),
        (MonaiUNet, {"out_channels": 0}, "out_channels=0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    cls: type[VolumetricNetwork], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(cls, **settings)
