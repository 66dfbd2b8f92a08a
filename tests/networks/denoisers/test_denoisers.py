"""What every denoiser promises."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from neurotrain.networks import denoisers
from neurotrain.networks.denoisers import Denoiser, PixelUNet, PointMLP, TimeEmbedding

Make = Callable[..., Denoiser]
SMALL: dict[str, tuple[Make, tuple[int, ...]]] = {
    "mlp": (lambda **given: PointMLP(**({"width": 16, "depth": 2} | given)), (2,)),
    "unet": (lambda **given: PixelUNet(**({"widths": (8, 16), "blocks": 1, "embedding": 16} | given)), (1, 28, 28)),
    "patched": (
        lambda **given: PixelUNet(
            **(
                {"channels": 3, "widths": (8, 8), "blocks": 2, "patch": 2, "embedding": 16, "attention_heads": 0}
                | given
            )
        ),
        (3, 32, 16),
    ),
}
every_denoiser = pytest.mark.parametrize(("make", "shape"), list(SMALL.values()), ids=list(SMALL))


def batch(shape: tuple[int, ...], count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *shape, generator=generator), torch.rand(count, generator=generator)


def built(make: Make, **given: object) -> Denoiser:
    """With every weight off zero, or some would have no gradient and no effect at the start."""
    torch.manual_seed(0)
    network = make(**given)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network


def test_all_is_sorted() -> None:
    assert denoisers.__all__ == sorted(denoisers.__all__)


@pytest.mark.parametrize("cls", [PointMLP, PixelUNet, TimeEmbedding])
def test_constructors_are_keyword_only(cls: type) -> None:
    parameters = inspect.signature(cls).parameters.values()
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}


@every_denoiser
def test_prediction_has_the_sample_s_shape_and_every_weight_a_gradient(make: Make, shape: tuple[int, ...]) -> None:
    network = built(make, num_classes=4, scalars=("guidance",))
    x, t = batch(shape)
    steered = {"label": torch.tensor([0, 1, 3]), "guidance": torch.tensor([1.0, 2.0, 7.5])}
    found = network(x, t, steered)
    assert found.shape == x.shape
    (found.square().mean() + network(x, t).square().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@every_denoiser
def test_samples_do_not_see_each_other(make: Make, shape: tuple[int, ...]) -> None:
    network = built(make).eval()
    x, t = batch(shape)
    torch.testing.assert_close(network(x, t)[1:2], network(x[1:2], t[1:2]), rtol=1e-4, atol=1e-5)


@every_denoiser
def test_time_class_and_numbers_steer(make: Make, shape: tuple[int, ...]) -> None:
    network = built(make, num_classes=4, scalars=("guidance",)).eval()
    x, t = batch(shape)
    label, guidance = torch.tensor([0, 1, 2]), torch.tensor([1.0, 2.0, 3.0])
    seen = [
        network(x, t),
        network(x, t + 0.05),
        network(x, t, {"label": label}),
        network(x, t, {"label": label + 1}),
        network(x, t, {"guidance": guidance}),
        network(x, t, {"guidance": guidance + 1}),
    ]
    for index, one in enumerate(seen):
        for other in seen[index + 1 :]:
            assert (one - other).abs().max() > 1e-5


@every_denoiser
def test_a_number_that_is_new_changes_nothing_at_first(make: Make, shape: tuple[int, ...]) -> None:
    x, t = batch(shape)
    torch.manual_seed(0)
    plain = make()
    steered = make(scalars=("guidance",))
    steered.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(steered(x, t, {"guidance": t}), plain(x, t))


@every_denoiser
def test_features_are_of_the_batch_and_carry_gradient(make: Make, shape: tuple[int, ...]) -> None:
    network = built(make)
    x, t = batch(shape)
    x.requires_grad_()
    found = network.features(x, t)
    assert len(found) == 2
    assert all(len(part) == len(x) for part in found)
    sum(part.square().mean() for part in found).backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


@every_denoiser
@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated.*:FutureWarning")  # torch's own, on first use
def test_derivative_by_time_is_that_of_differences(make: Make, shape: tuple[int, ...]) -> None:
    network = built(make).double().eval()
    x, t = (part.double() for part in batch(shape))
    _, tangent = torch.func.jvp(lambda time: network(x, time), (t,), (torch.ones_like(t),))
    numeric = (network(x, t + 1e-5) - network(x, t - 1e-5)) / 2e-5
    torch.testing.assert_close(tangent, numeric, rtol=1e-4, atol=1e-5)


@every_denoiser
def test_pickle_copy_and_state_round_trip(make: Make, shape: tuple[int, ...]) -> None:
    network = built(make, num_classes=2).eval()
    fresh = make(num_classes=2).eval()
    fresh.load_state_dict(network.state_dict())
    x, t = batch(shape)
    with torch.no_grad():
        expected = network(x, t)
        for twin in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network), fresh):
            assert torch.equal(twin(x, t), expected)


@every_denoiser
def test_mistakes_are_named(make: Make, shape: tuple[int, ...]) -> None:
    network = make(num_classes=2)
    x, t = batch(shape)
    with pytest.raises(ValueError, match="not steered by 'labels', only by 'label'"):
        network(x, t, {"labels": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"channel 'label' of shape \(2,\): expected \(3,\)"):
        network(x, t, {"label": torch.zeros(2, dtype=torch.long)})
    with pytest.raises(ValueError, match=r"times of shape \(1,\)"):
        network(x, t[:1])
    with pytest.raises(ValueError, match="samples of shape"):
        network(x[None], t)


def test_sides_must_fit_the_levels() -> None:
    network = SMALL["unet"][0]()
    assert isinstance(network, PixelUNet)
    assert network.multiple == 2
    with pytest.raises(ValueError, match="multiples of 2"):
        network(torch.zeros(1, 1, 27, 28), torch.zeros(1))


@pytest.mark.parametrize("given", [{"widths": ()}, {"dropout": 1.0}, {"attention_heads": 3}, {"embedding": 7}])
def test_wrong_values_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(given)) if "embedding" not in given else "width=7"):
        SMALL["unet"][0](**given)
