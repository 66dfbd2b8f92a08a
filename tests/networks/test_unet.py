"""U-Net: parity with its definition, size of everything, corners."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.networks import SegmentationOutput, UNet


def functional_unet(weights: dict[str, Tensor], x: Tensor, depth: int, *, residual: bool) -> Tensor:
    """The network of the defaults in eval mode, written down again from its definition."""

    def norm(x: Tensor, key: str) -> Tensor:
        mean, var = weights[f"{key}.running_mean"], weights[f"{key}.running_var"]
        scale = weights[f"{key}.weight"] / torch.sqrt(var + 1e-5)
        return (x - mean[:, None, None]) * scale[:, None, None] + weights[f"{key}.bias"][:, None, None]

    def block(x: Tensor, key: str) -> Tensor:
        hidden = norm(F.conv2d(x, weights[f"{key}.conv1.weight"], padding=1), f"{key}.norm1").clamp_min(0)
        hidden = norm(F.conv2d(hidden, weights[f"{key}.conv2.weight"], padding=1), f"{key}.norm2")
        if residual:
            skip = weights.get(f"{key}.shortcut.weight")
            hidden = hidden + (x if skip is None else torch.einsum("oi,bihw->bohw", skip[:, :, 0, 0], x))
        return hidden.clamp_min(0)

    def pool(x: Tensor) -> Tensor:
        height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        x = x[:, :, :height, :width]
        return torch.maximum(
            torch.maximum(x[:, :, ::2, ::2], x[:, :, 1::2, ::2]), torch.maximum(x[:, :, ::2, 1::2], x[:, :, 1::2, 1::2])
        )

    skips = [block(x, "encoder.0")]
    for level in range(1, depth):
        skips.append(block(pool(skips[-1]), f"encoder.{level}"))
    x = skips.pop()
    for level in range(depth - 1):
        skip = skips.pop()
        # Interpolated before it is projected: the network does it the other way round, and both commute.
        raised = F.interpolate(x, size=skip.shape[2:], mode="bilinear")
        raised = F.conv2d(raised, weights[f"upsamples.{level}.project.weight"])
        x = block(torch.cat([raised, skip], 1), f"decoder.{level}")
    return F.conv2d(x, weights["head.weight"], weights["head.bias"])


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (45, 37)])
def test_parity_with_functional_forward_on_the_same_weights(residual: bool, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = UNet(widths=(3, 5, 7, 9), residual=residual).double()
    for _ in range(3):  # gives the running statistics values of their own
        network(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    network.eval()
    with torch.no_grad():
        expected = functional_unet(network.state_dict(), image, depth=4, residual=residual)
        torch.testing.assert_close(network(image), expected, rtol=1e-9, atol=1e-9)


def block_parameters(wide: int, out: int, dims: int, residual: bool) -> int:
    convolutions = 3**dims * (wide * out + out * out)
    norms = 2 * 2 * out
    shortcut = wide * out if residual and wide != out else 0
    return convolutions + norms + shortcut


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize(("dims", "upsample", "residual"), [(2, "linear", True), (3, "transpose", False)])
def test_parameter_count(
    dims: Literal[2, 3],
    upsample: Literal["linear", "transpose"],
    residual: bool,
    norm: Literal["batch", "instance", "group"],
) -> None:
    widths, channels, logits = (4, 6, 10), 2, 3
    network = UNet(
        in_channels=channels,
        out_channels=logits,
        widths=widths,
        dims=dims,
        upsample=upsample,
        residual=residual,
        norm=norm,
        aux_heads=1,
    )
    expected = sum(block_parameters(i, o, dims, residual) for i, o in itertools.pairwise((channels, *widths)))
    for fine, coarse in itertools.pairwise(widths):
        expected += coarse * fine if upsample == "linear" else 2**dims * coarse * fine + fine
        expected += block_parameters(2 * fine, fine, dims, residual)
    expected += (widths[0] + 1) * logits + (widths[1] + 1) * logits
    assert sum(p.numel() for p in network.parameters()) == expected


def test_default_parameter_count_by_hand() -> None:
    encoder = [9 * (i * o + o * o) + 4 * o + i * o for i, o in ((3, 32), (32, 64), (64, 128))]
    assert encoder == [10_304, 57_600, 229_888]
    decoder = [9 * (i * o + o * o) + 4 * o + i * o for i, o in ((128, 64), (64, 32))]
    assert decoder == [119_040, 29_824]
    expected = sum(encoder) + 128 * 64 + 64 * 32 + sum(decoder) + 33
    assert expected == 456_929
    assert sum(p.numel() for p in UNet().parameters()) == expected


@pytest.mark.parametrize("upsample", ["linear", "transpose"])
@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_any_size_in_three_dimensions(
    upsample: Literal["linear", "transpose"], norm: Literal["batch", "instance", "group"]
) -> None:
    network = UNet(in_channels=1, out_channels=4, widths=(4, 8, 8), dims=3, norm=norm, upsample=upsample).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 1, 9, 15, 22)).shape == (1, 4, 9, 15, 22)


@pytest.mark.parametrize("upsample", ["linear", "transpose"])
def test_drive_size(upsample: Literal["linear", "transpose"]) -> None:
    network = UNet(widths=(2, 4, 4, 4), upsample=upsample).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 584, 565)).shape == (1, 1, 584, 565)


def test_transposed_upsampling_repeats_the_edge_of_odd_sizes() -> None:
    network = UNet(widths=(2, 3), upsample="transpose")
    raised = network.upsamples[0](torch.randn(1, 3, 2, 2), (5, 4))
    assert raised.shape == (1, 2, 5, 4)
    assert torch.equal(raised[:, :, 4], raised[:, :, 3])


def test_deep_supervision() -> None:
    torch.manual_seed(0)
    network = UNet(widths=(4, 6, 8, 10), aux_heads=2, norm="group")
    image = torch.randn(2, 3, 40, 28)
    seen: dict[int, Tensor] = {}
    for index, block in enumerate(network.decoder):
        block.register_forward_hook(lambda module, args, result, index=index: seen.update({index: result}))
    output = network(image)
    assert isinstance(output, SegmentationOutput)
    for aux, head, level in zip(output.aux, network.aux_heads, (1, 0), strict=True):
        expected = F.interpolate(head(seen[level]), size=(40, 28), mode="bilinear")
        torch.testing.assert_close(aux, expected)
    network.eval()
    torch.testing.assert_close(network(image), output.logits)


def test_without_aux_heads_training_returns_a_tensor() -> None:
    assert isinstance(UNet(widths=(4, 8))(torch.randn(2, 3, 16, 16)), Tensor)


def test_dropout_acts_in_training_only_and_on_whole_channels() -> None:
    torch.manual_seed(0)
    network = UNet(widths=(16,), dropout=0.5, norm="group")
    image = torch.randn(1, 3, 8, 8)
    assert not torch.equal(network(image), network(image))
    dropped = network.encoder[0].dropout(torch.ones(1, 16, 8, 8)).flatten(2)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped.amin(2), dropped.amax(2))
    network.eval()
    assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("upsample", ["linear", "transpose"])
def test_gradient(upsample: Literal["linear", "transpose"]) -> None:
    torch.manual_seed(0)
    network = UNet(in_channels=1, widths=(2, 2), norm="group", upsample=upsample).double()
    image = torch.randn(1, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (image,))


def test_smallest_image() -> None:
    network = UNet(widths=(4, 4, 4)).eval()
    assert network(torch.zeros(1, 3, 4, 5)).shape == (1, 1, 4, 5)
    with pytest.raises(ValueError, match=r"\(3, 64\) is too small for 3 levels: each axis needs at least 4"):
        network(torch.zeros(1, 3, 3, 64))


def test_instance_norm_refuses_a_single_pixel_at_the_coarsest_level() -> None:
    network = UNet(widths=(4, 4, 4), norm="instance")
    with pytest.raises(ValueError, match="single pixel"):
        network(torch.zeros(1, 3, 7, 7))
    assert network(torch.zeros(1, 3, 8, 7)).shape == (1, 1, 8, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "bath"}, "norm='bath'.*did you mean 'batch'"),
        ({"upsample": "liner"}, "upsample='liner'.*did you mean 'linear'"),
        ({"dims": 4}, "dims=4"),
        ({"widths": ()}, "widths"),
        ({"widths": (8, 0)}, "widths"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"out_channels": 0}, "out_channels=0"),
        ({"dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\)"),
        ({"dropout": float("nan")}, "dropout=nan"),
        ({"aux_heads": 2}, r"aux_heads=2 must be in \[0, 1\]"),
        ({"aux_heads": -1}, "aux_heads=-1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**settings)  # type: ignore[arg-type]


def test_compiles_into_one_graph() -> None:
    torch.manual_seed(0)
    network = UNet(widths=(2, 4, 4), aux_heads=1, norm="group")
    image = torch.randn(1, 3, 20, 13)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    expected, found = network(image), compiled(image)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.aux, expected.aux)
