"""W-Net: how its two networks are joined."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.networks import SegmentationOutput, WNet


def test_default_is_little() -> None:
    count = sum(p.numel() for p in WNet().parameters())
    assert count == 58_050
    assert count < 100_000


@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multiclass", 3), ("multilabel", 3), ("multilabel", 1)])
def test_second_network_sees_image_and_probabilities(mode: SegmentationMode, channels: int) -> None:
    torch.manual_seed(0)
    network = WNet(widths=(4, 6), mode=mode, out_channels=channels).eval()
    seen: list[Tensor] = []
    network.second.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    image = torch.randn(2, 3, 17, 12)
    with torch.no_grad():
        logits, first = network(image), network.first(image)
        assert torch.equal(seen[0][:, :3], image)
        expected = first.exp() / first.exp().sum(1, keepdim=True) if mode == "multiclass" else 1 / (1 + (-first).exp())
        torch.testing.assert_close(seen[0][:, 3:], expected)
        assert torch.equal(logits, network.second(seen[0]))


def test_training_returns_both_logits_and_eval_the_second() -> None:
    torch.manual_seed(0)
    network = WNet(widths=(4, 8), norm="group")
    image = torch.randn(2, 3, 16, 16)
    output = network(image)
    assert isinstance(output, SegmentationOutput)
    assert len(output.aux) == 1
    assert torch.equal(output.aux[0], network.first(image))
    assert torch.equal(network.eval()(image), output.logits)


def test_loss_on_the_final_logits_alone_reaches_the_first_network() -> None:
    torch.manual_seed(0)
    network = WNet(widths=(4, 8))
    network(torch.randn(2, 3, 16, 16)).logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.first.parameters())


def test_three_dimensions_and_odd_size() -> None:
    network = WNet(in_channels=1, out_channels=2, mode="multiclass", dims=3, widths=(2, 4)).eval()
    assert network(torch.randn(1, 1, 5, 6, 7)).shape == (1, 2, 5, 6, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"out_channels": 2}, "out_channels=2 with mode='binary'"),
        ({"mode": "multiclass"}, "out_channels=1 with mode='multiclass'"),
        ({"mode": "multi"}, "mode='multi' is unknown; did you mean 'multi"),
        ({"norm": "layer"}, "norm='layer'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WNet(**settings)  # type: ignore[arg-type]


def test_too_small_image_is_refused() -> None:
    with pytest.raises(ValueError, match="too small for 3 levels"):
        WNet()(torch.zeros(1, 3, 3, 3))
