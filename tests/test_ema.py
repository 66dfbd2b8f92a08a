"""The average of weights against torch's own, by hand, and through files and exceptions."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from neurotrain.ema import ExponentialMovingAverage


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))


def _step(net: nn.Module) -> None:
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p))
    net(torch.randn(2, 3, 8, 8))


def test_equals_torchs_own_averaged_model() -> None:
    net = _net()
    reference = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    reference.update_parameters(net)  # its first call copies
    ema = ExponentialMovingAverage(decay=0.9, warmup=False)
    ema.attach(net)
    for _ in range(5):
        _step(net)
        reference.update_parameters(net)
        ema.update()
    ours = ema.state_dict()["average"]
    for name, value in reference.module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert ours[name] == 5
        else:
            torch.testing.assert_close(ours[name], value)


def test_warmup_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 0.0)
    ema = ExponentialMovingAverage(decay=0.5)
    ema.attach(layer)
    nn.init.constant_(layer.weight, 1.0)
    expected = 0.0
    for t in range(12):
        ema.update()
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay)
        assert ema.state_dict()["average"]["weight"].item() == pytest.approx(expected, abs=1e-6)
    assert ema.updates == 12


def test_swap_is_exact_and_survives_an_exception() -> None:
    net = _net()
    ema = ExponentialMovingAverage()
    ema.attach(net)
    _step(net)
    ema.update()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    pointers = [p.data_ptr() for p in net.parameters()]
    averages = {k: v.clone() for k, v in ema.state_dict()["average"].items()}
    with pytest.raises(KeyError), ema.swap():  # noqa: PT012
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, averages[name].to(value.dtype), rtol=0, atol=0)
        assert not torch.equal(net[0].weight, before["0.weight"])
        raise KeyError("inside")
    assert [p.data_ptr() for p in net.parameters()] == pointers
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    for name, value in ema.state_dict()["average"].items():
        assert torch.equal(value, averages[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_averages_are_wide_and_swap_works_in_inference_mode(dtype: torch.dtype) -> None:
    layer = nn.Linear(2, 2).to(dtype)
    ema = ExponentialMovingAverage(decay=0.999, warmup=False)
    with torch.inference_mode():
        ema.attach(layer)
    own = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    for _ in range(4):
        ema.update()
    average = ema.state_dict()["average"]["weight"]
    assert average.dtype == (torch.float32 if dtype == torch.bfloat16 else torch.float64)
    # 0.004 of a difference of 1 is below bfloat16's resolution, yet it is kept.
    assert torch.all(average > own.to(average.dtype) + 0.003)
    live = layer.weight.detach().clone()
    with torch.inference_mode(), ema.swap():
        assert layer.weight.dtype == dtype
        assert torch.equal(layer.weight, average.to(dtype))
    assert torch.equal(layer.weight, live)
    layer(torch.ones(1, 2, dtype=dtype)).sum().backward()
    ema.update()


def test_state_goes_through_a_safe_file_before_and_after_attach() -> None:
    net = _net()
    ema = ExponentialMovingAverage()
    ema.attach(net)
    _step(net)
    ema.update()
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    early, late = ExponentialMovingAverage(), ExponentialMovingAverage()
    early.load_state_dict(state)
    early.attach(net)
    late.attach(net)
    late.load_state_dict(state)
    _step(net)
    for each in (ema, early, late):
        each.update()
    for name, value in ema.state_dict()["average"].items():
        assert torch.equal(value, early.state_dict()["average"][name])
        assert torch.equal(value, late.state_dict()["average"][name])
    assert early.updates == late.updates == 2


def test_attaching_another_module_starts_anew() -> None:
    ema = ExponentialMovingAverage()
    first, second = _net(), nn.Linear(1, 1)
    ema.attach(first)
    ema.update()
    ema.attach(second)
    assert ema.updates == 0
    assert list(ema.state_dict()["average"]) == ["weight", "bias"]


def test_buffers_replaced_by_a_conversion_are_followed() -> None:
    net = nn.BatchNorm1d(2)
    ema = ExponentialMovingAverage(decay=0.5, warmup=False)
    ema.attach(net)
    net.to(torch.float64)  # replaces the buffer objects
    net.running_mean.fill_(2.0)
    ema.update()
    assert ema.state_dict()["average"]["running_mean"].tolist() == [1.0, 1.0]


def test_non_persistent_buffers_and_empty_modules() -> None:
    module = nn.Module()
    module.register_buffer("grid", torch.zeros(3), persistent=False)
    ema = ExponentialMovingAverage()
    ema.attach(module)
    ema.update()
    with ema.swap():
        pass
    assert ema.state_dict()["average"] == {}


def test_skipped_buffers_are_neither_averaged_nor_swapped() -> None:
    module = nn.Linear(1, 1)
    module.register_buffer("threshold", torch.tensor(float("nan")))
    ema = ExponentialMovingAverage()
    ema.attach(module, skip=["threshold"])
    ema.update()
    with ema.swap():
        module.threshold.fill_(0.5)
    assert module.threshold == 0.5
    assert list(ema.state_dict()["average"]) == ["weight", "bias"]


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"decay=1.0"):
        ExponentialMovingAverage(decay=1.0)
    ema = ExponentialMovingAverage()
    with pytest.raises(RuntimeError, match="before attach"):
        ema.update()
    with pytest.raises(RuntimeError, match="before attach"), ema.swap():
        pass
    ema.attach(nn.Linear(1, 1))
    with ema.swap(), pytest.raises(RuntimeError, match="inside swap"):
        ema.update()
    with pytest.raises(ValueError, match="'weigth'"):
        ema.load_state_dict({"updates": 1, "average": {"weigth": torch.zeros(1, 1), "bias": torch.zeros(1)}})
    with pytest.raises(ValueError, match="shape"):
        ema.load_state_dict({"updates": 1, "average": {"weight": torch.zeros(2, 1), "bias": torch.zeros(1)}})
    other = ExponentialMovingAverage()
    other.load_state_dict(ema.state_dict())
    with pytest.raises(ValueError, match=r"no average was given for '1.bias'|not a tensor"):
        other.attach(_net())
