"""Adapter to the classification networks of timm.

Shape legend: ``B`` batch, ``C`` image channels, ``K`` classes, ``H`` height, ``W`` width.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, final

from torch import Tensor, nn

from neurotrain.networks.classification.base import Classifier, TokenLayout
from neurotrain.storage.tensors import read_checkpoint, read_safetensors

_HUB = "hf-hub:"
_PINNED = re.compile(r"hf-hub:[\w.-]+/[\w.-]+@[0-9a-f]{40}")


@final
class Timm(Classifier):
    """A network of timm by its name, with random weights, timm's own from the hub, or those of a local file.

    A head or a first convolution of another width than the file's is adapted as timm does it: the head begins anew, the
    first convolution's channels are summed or repeated.

    Args:
        name: as ``timm.list_models()`` has it, with its tag where ``weights="hub"`` is to take those
            (``resnet50.a1_in1k``), or ``hf-hub:owner/name@commit``.
        weights: ``None`` for random ones, ``hub`` for those of ``name``, else the path of a file: safetensors, or a
            pickle of tensors alone, which is read without running code.
        num_classes: logits K.
        in_channels: channels C of the image.
        dropout: before the head, in [0, 1).
        drop_path: stochastic depth, in [0, 1), of networks that have it.

    Raises:
        ValueError: if the name is unknown, or the file does not fit the network.
        FileNotFoundError: if there is no such file.

    Example:
        >>> import torch
        >>> Timm(name="test_resnet", num_classes=3)(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 3])

    Reference:
        https://huggingface.co/docs/timm
    """

    def __init__(
        self,
        *,
        name: str = "resnet18",
        weights: str | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_channels = num_classes, in_channels
        options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
        # Only what is asked for: not every network of timm takes them.
        options |= {"drop_rate": dropout} if dropout else {}
        options |= {"drop_path_rate": drop_path} if drop_path else {}
        state: dict[str, Tensor] | None = None
        if weights is not None and weights != "hub":
            state = _state_dict(Path(weights))
            # A copy: timm takes the head out of it.
            options["pretrained_cfg_overlay"] = {"state_dict": dict(state), "source": None}
        self.network = _create(name, options, pretrained=weights is not None, weights=weights)
        if state is not None:
            _check_names(self.network, state, name=name, weights=weights)

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """``(B, K)`` of images that are normalised as the weights were trained with."""
        return self.network(x_BCHW)

    def depths(self) -> Mapping[str, int]:
        """As timm groups its networks into layers."""
        from timm.models import group_parameters

        network: Any = self.network
        found = cast("dict[str, int]", group_parameters(network, network.group_matcher(coarse=False), reverse=True))
        return {f"network.{name}": layer for name, layer in found.items()}

    def evidence_layer(self) -> nn.Module:
        """The last module whose output is a map: the last stage that timm lists among its features.

        Raises:
            ValueError: if the network lists none, or is a transformer, whose layers give sequences.
        """
        network: Any = self.network
        if _plain_transformer(network):
            raise ValueError(f"{type(network).__name__} of timm has no map of features: its layers give sequences")
        # timm's own mark of networks whose maps have their channels last, which would be taken for pixels.
        if vars(network).get("output_fmt", "NCHW") != "NCHW":
            raise ValueError(f"{type(network).__name__} of timm has no map of features (B, C, h, w): channels are last")
        try:
            return self.network.get_submodule(network.feature_info[-1]["module"])
        except (AttributeError, IndexError, TypeError) as error:
            raise ValueError(f"{type(network).__name__} of timm lists no features: {error}") from error

    def token_layout(self) -> TokenLayout:
        """Of timm's ``VisionTransformer`` and ``Eva``, which are ViT, DeiT, DINO, CLIP's, SigLIP's and EVA's towers.

        Raises:
            ValueError: for any other network, and for heads that read the greatest value instead of a mean.
        """
        from timm.models.deit import VisionTransformerDistilled
        from timm.models.vision_transformer import VisionTransformer

        network: Any = self.network
        name = type(network).__name__
        if not _plain_transformer(network):
            raise ValueError(f"{name} of timm has no attention over patches of the image, the same in every layer")
        prefix, pool = network.num_prefix_tokens, network.global_pool
        every = isinstance(network, VisionTransformer) and network.pool_include_prefix
        patches = slice(0 if every else prefix, None)
        read: dict[str, slice | None] = {"token": slice(0, 1), "avg": patches, "map": None}
        if pool not in read:
            raise ValueError(f"{name} of timm with global_pool={pool!r}: no mean of tokens is what its head reads")
        reads = slice(0, 2) if isinstance(network, VisionTransformerDistilled) else read[pool]
        height, width = network.patch_embed.patch_size
        return TokenLayout(layers=len(network.blocks), patch=(height, width), prefix=prefix, read=reads)


def _plain_transformer(network: nn.Module) -> bool:
    """Whether it is one sequence of tokens from the first layer to the last."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    return isinstance(network, Eva | VisionTransformer)


def _create(name: str, options: dict[str, Any], *, pretrained: bool, weights: str | None) -> nn.Module:
    import timm

    if name.startswith(_HUB) and not _PINNED.fullmatch(name):
        raise ValueError(
            f"name={name!r}: what is on the hub needs a commit, {_HUB}owner/name@ and 40 hexadecimal digits"
        )
    if not name.startswith(_HUB) and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise ValueError(f"name={name!r} is no network of timm; nearest: {', '.join(near) or 'none'}")
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (RuntimeError, TypeError, KeyError) as error:
        raise ValueError(f"name={name!r}, weights={weights!r}: {error}") from error


def _check_names(network: Any, state: dict[str, Tensor], *, name: str, weights: str | None) -> None:  # noqa: ANN401
    """Refuse a file that lacks parts: timm only logs that, and leaves them random, once the head is another one."""
    heads = network.pretrained_cfg["classifier"]
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    needed = [key for key in network.state_dict() if not key.startswith(tuple(f"{head}." for head in heads))]
    missing = [key for key in needed if key not in state and not key.endswith("num_batches_tracked")]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"weights={weights!r} lack {', '.join(missing[:3])}{more} of timm's {name!r}")


def _state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"weights={str(path)!r}: no such file; or 'hub', or null for random weights")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    found = read_checkpoint(path)
    state = found.get("state_dict", found)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights={str(path)!r}: holds no mapping of names to tensors")
    return state
