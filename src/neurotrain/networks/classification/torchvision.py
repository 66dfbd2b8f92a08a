"""Adapter to the classification networks of torchvision.

Shape legend: ``B`` batch, ``C`` image channels, ``K`` classes, ``H`` height, ``W`` width.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from neurotrain.networks.classification.base import Classifier, TokenLayout
from neurotrain.storage.tensors import read_checkpoint, read_safetensors

logger = logging.getLogger(__name__)

_AUXILIARY = ("googlenet", "inception_v3")
"""Networks that give further logits in training."""


@final
class Torchvision(Classifier):
    """A network of torchvision by its name, with random weights, torchvision's own, or those of a local file.

    Where the file is of another number of classes the head begins anew, which is logged; a first convolution of other
    channels takes the file's, summed for one channel and repeated for more, as timm does it.

    Args:
        name: as ``torchvision.models.list_models(module=torchvision.models)`` has it.
        weights: ``None`` for random ones; the name of torchvision's own (``IMAGENET1K_V1``, ``DEFAULT``), which are
            downloaded once and read without running code; else the path of a file: safetensors, or a pickle of tensors
            alone.
        num_classes: logits K.
        in_channels: channels C of the image.

    Raises:
        ValueError: if the name is unknown or the weights do not fit the network.
        FileNotFoundError: if there is no such file.

    Example:
        >>> Torchvision(name="squeezenet1_1", num_classes=3)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 3])

    Reference:
        https://docs.pytorch.org/vision/stable/models.html
    """

    def __init__(
        self, *, name: str = "resnet18", weights: str | None = None, num_classes: int = 10, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.num_classes, self.in_channels = num_classes, in_channels
        self.network = _create(name, num_classes)
        first = _first_convolution(self.network)
        if in_channels != 3:
            _widen(self.network, first, in_channels)
        if weights is not None:
            _load(self.network, _state(name, weights), first=first, weights=weights)

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """``(B, K)`` of images that are normalised as the weights were trained with."""
        return self.network(x_BCHW)

    def depths(self) -> Mapping[str, int]:
        """In the order in which torchvision lists its modules: each block of a sequence is a layer.

        A norm belongs to the layer before it, and what is no module's but the network's (class tokens, places) to the
        first.
        """
        found: dict[str, int] = {}
        depth = -1
        for name, module in _parts("network", self.network):
            own = [parameter for parameter, _ in module.named_parameters()]
            if own and not (isinstance(module, _NormBase | nn.LayerNorm) and depth >= 0):
                depth += 1
            found |= {f"{name}.{parameter}": max(depth, 0) for parameter in own}
        return {name: found.get(name, 0) for name, _ in self.named_parameters()}

    def evidence_layer(self) -> nn.Module:
        """The last child that gives a map: ``features``, or the last stage of a residual network.

        Raises:
            ValueError: if the network has neither, as a vision transformer.
        """
        children = dict(self.network.named_children())
        for name in ("features", "layer4", "trunk_output", "stages"):
            if name in children and not type(self.network).__name__.startswith("Swin"):
                return children[name]
        raise ValueError(f"{type(self.network).__name__} of torchvision has no last map of features that is told here")

    def token_layout(self) -> TokenLayout:
        """There is none: torchvision's attention is a fused layer, of which nothing is seen.

        Raises:
            ValueError: always.
        """
        name = type(self.network).__name__
        raise ValueError(f"{name} of torchvision does not show its attention; timm's and our own transformers do")


def _create(name: str, num_classes: int) -> nn.Module:
    from torchvision import models

    known = [known for known in models.list_models(module=models) if known not in _AUXILIARY]
    if name not in known:
        why = "gives further logits in training" if name in _AUXILIARY else "is no classification network"
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        raise ValueError(f"name={name!r} {why} of torchvision; nearest: {', '.join(near) or 'none'}")
    return models.get_model(name, weights=None, num_classes=num_classes)


def _parts(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Sequences and torchvision's own containers opened up, blocks as they are."""
    for child_name, child in module.named_children():
        opened = isinstance(child, nn.Sequential) and type(child) is nn.Sequential
        if opened or type(child).__name__ in ("Encoder", "AnyStage", "SwinTransformerBlockSequence"):
            yield from _parts(f"{name}.{child_name}", child)
        else:
            yield f"{name}.{child_name}", child


def _first_convolution(network: nn.Module) -> str:
    return next(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))


def _widen(network: nn.Module, name: str, in_channels: int) -> None:
    """Put a convolution of other channels in the first one's place."""
    old = network.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    if in_channels < 1 or old.groups != 1:
        raise ValueError(f"in_channels={in_channels}: must be at least 1, of a network whose first layer sees all")
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        (old.kernel_size[0], old.kernel_size[1]),
        stride=(old.stride[0], old.stride[1]),
        padding=old.padding if isinstance(old.padding, str) else (old.padding[0], old.padding[1]),
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    parent, _, last = name.rpartition(".")
    network.get_submodule(parent).register_module(last, new)


def _state(name: str, weights: str) -> dict[str, Tensor]:
    from torchvision import models

    own: Any = models.get_model_weights(name)
    if weights == "DEFAULT" or weights in own.__members__:
        # Downloads are checked against the hash in their name; a pickle may hold tensors alone.
        return dict(own[weights].get_state_dict(progress=False, check_hash=True, weights_only=True))
    path = Path(weights)
    if not path.is_file():
        told = ", ".join(own.__members__)
        raise FileNotFoundError(f"weights={weights!r}: no such file; or one of {told}; or null for random weights")
    found: Any = read_safetensors(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    state = found.get("state_dict", found)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights={weights!r}: holds no mapping of names to tensors")
    return {key.removeprefix("network."): value for key, value in state.items()}


def _load(network: nn.Module, state: dict[str, Tensor], *, first: str, weights: str) -> None:
    own = network.state_dict()
    key = f"{first}.weight"
    if key in state and state[key].shape != own[key].shape:
        state[key] = _adapted(state[key], own[key].shape[1])
    # The head is what comes last: its names are those of the last layer that has weights.
    head = next(reversed([name for name in own if name.endswith("weight")])).rpartition(".")[0]
    anew = [name for name in own if name.startswith(head) and name in state and state[name].shape != own[name].shape]
    if anew:
        logger.warning("weights=%s: of another number of classes; begin anew: %s", weights, ", ".join(anew))
    given = {name: own[name] if name in anew else value for name, value in state.items()}
    try:
        network.load_state_dict(given)
    except RuntimeError as error:
        raise ValueError(f"weights={weights!r} are not those of {type(network).__name__}: {error}") from error


def _adapted(weight_OIhw: Tensor, channels: int) -> Tensor:
    """The first layer's weights for other channels: a grey image in each of them gives the same as before."""
    there = weight_OIhw.shape[1]
    if channels == 1:
        return weight_OIhw.sum(1, keepdim=True)
    repeated = torch.cat([weight_OIhw] * -(-channels // there), 1)[:, :channels]
    return repeated * (there / channels)
