"""What every network promises, parametrised over the room's ``__all__``."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import get_type_hints

import pytest
import torch
from torch import Tensor, nn

from neurotrain import networks
from neurotrain.networks import SegmentationOutput

SMALL = {
    "SimpleNet": {},
    "SmpNetwork": {"encoder": "tu-test_resnet"},
    "UNet": {"widths": (4, 8, 12), "aux_heads": 1},
    "WNet": {"widths": (4, 8), "mode": "multilabel"},
}
members = [getattr(networks, name) for name in networks.__all__]
NETWORKS = [member for member in members if inspect.isclass(member) and issubclass(member, nn.Module)]


def build(cls: type[nn.Module], **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return cls(**{**SMALL[cls.__name__], **settings})


def as_output(result: Tensor | SegmentationOutput) -> SegmentationOutput:
    return result if isinstance(result, SegmentationOutput) else SegmentationOutput(result, ())


def test_all_is_sorted_and_complete() -> None:
    assert networks.__all__ == sorted(networks.__all__)
    assert {cls.__name__ for cls in NETWORKS} == set(SMALL)


@pytest.mark.parametrize("cls", NETWORKS)
class TestContract:
    def test_constructor_is_keyword_only_typed_and_has_plain_defaults(self, cls: type[nn.Module]) -> None:
        hints = get_type_hints(cls.__init__)
        for name, parameter in inspect.signature(cls).parameters.items():
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert name in hints
            assert isinstance(parameter.default, int | float | str | tuple | type(None))

    @pytest.mark.parametrize("size", [(32, 48), (45, 37)])
    def test_eval_returns_logits_at_input_size(self, cls: type[nn.Module], size: tuple[int, int]) -> None:
        network = build(cls, in_channels=2, out_channels=3).eval()
        with torch.no_grad():
            logits = network(torch.randn(2, 2, *size))
        assert type(logits) is Tensor
        assert logits.shape == (2, 3, *size)
        assert logits.dtype == torch.float32
        assert logits.std() > 0

    def test_training_output_and_gradient_to_every_parameter(self, cls: type[nn.Module]) -> None:
        network = build(cls).train()
        for parameter in network.parameters():  # some start at zero and hold up the gradient of others
            parameter.data += 0.1 * torch.randn_like(parameter)
        output = as_output(network(torch.randn(2, 3, 45, 37)))
        assert all(aux.shape == output.logits.shape for aux in output.aux)
        loss = sum(logits.square().mean() for logits in (output.logits, *output.aux))
        loss.backward()
        without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert without == []

    def test_eval_is_deterministic_and_independent_of_the_rest_of_the_batch(self, cls: type[nn.Module]) -> None:
        network = build(cls).eval()
        image = torch.randn(3, 3, 40, 33)
        with torch.no_grad():
            torch.testing.assert_close(network(image)[1:2], network(image[1:2]), rtol=1e-4, atol=1e-5)

    def test_pickle_copy_and_state_dict_round_trip(self, cls: type[nn.Module]) -> None:
        network = build(cls).eval()
        fresh = cls(**SMALL[cls.__name__]).eval()
        fresh.load_state_dict(network.state_dict())
        image = torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            expected = network(image)
            for twin in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network), fresh):
                assert torch.equal(twin(image), expected)

    def test_channels_last_gives_the_same_numbers(self, cls: type[nn.Module]) -> None:
        network = build(cls).eval()
        image = torch.randn(2, 3, 40, 33)
        with torch.no_grad():
            expected = network(image)
            found = network.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("shape", [(1, 4, 32, 32), (3, 32, 32), (1, 3, 32, 32, 32)])
    def test_wrong_shape_is_refused(self, cls: type[nn.Module], shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"expected \(batch, 3, height, width\)"):
            build(cls)(torch.zeros(shape))
