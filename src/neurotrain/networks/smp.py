"""Adapter to the decoders of segmentation-models-pytorch on the encoders of timm.

Shape legend: ``B`` batch, ``C`` image channels, ``K`` logits, ``H`` height, ``W`` width.
"""

from __future__ import annotations

import difflib
from typing import Any, Literal, final, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.blocks import check_choice

Architecture = Literal[
    "Unet",
    "UnetPlusPlus",
    "MAnet",
    "Linknet",
    "FPN",
    "PSPNet",
    "DeepLabV3",
    "DeepLabV3Plus",
    "PAN",
    "UPerNet",
    "Segformer",
    "DPT",
]
"""Decoders of segmentation-models-pytorch, as it spells them."""

_TIMM_PREFIX = "tu-"


@final
class SmpNetwork(nn.Module):
    """A decoder of segmentation-models-pytorch that takes images of any size.

    The image is padded at its borders (edge pixels repeated) to what the encoder can halve, and the logits are
    cropped back. 2-D only; needs the extra ``smp``. An encoder made for one image size (Swin) refuses other ones.

    Example:
        >>> import torch
        >>> network = SmpNetwork(encoder="tu-test_resnet").eval()
        >>> network(torch.zeros(1, 3, 37, 50)).shape
        torch.Size([1, 1, 37, 50])

    Reference:
        https://smp.readthedocs.io/en/latest/models.html and https://smp.readthedocs.io/en/latest/encoders_timm.html
    """

    def __init__(
        self,
        *,
        architecture: Literal[
            "Unet",
            "UnetPlusPlus",
            "MAnet",
            "Linknet",
            "FPN",
            "PSPNet",
            "DeepLabV3",
            "DeepLabV3Plus",
            "PAN",
            "UPerNet",
            "Segformer",
            "DPT",
        ] = "Unet",
        encoder: str = "tu-resnet18",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        out_channels: int = 1,
    ) -> None:
        """Build the network; downloads the encoder's weights where some are named.

        Args:
            architecture: decoder; ``"DPT"`` needs a vision transformer as encoder, the others a feature pyramid.
            encoder: ``"tu-"`` and a timm model without its tag, or an encoder of segmentation-models-pytorch.
            encoder_weights: None for random weights, ``"imagenet"`` for the encoder's default weights, or the tag
                of others (``"a1_in1k"`` for timm's ``resnet18.a1_in1k``).
            in_channels: channels C of the image.
            out_channels: logits K.

        Raises:
            ValueError: if the architecture, encoder or weights are unknown, or do not go together.
            ImportError: if segmentation-models-pytorch is not installed.
        """
        super().__init__()
        check_choice("architecture", architecture, get_args(Architecture))
        network = _create(architecture, encoder, encoder_weights, in_channels, out_channels)
        self.network: nn.Module = network
        self.in_channels = in_channels
        # DPT halves the deepest features of its transformer once more.
        self.stride: int = network.encoder.output_stride * (2 if architecture == "DPT" else 1)
        # PAN pools the deepest features by 8 before it resizes them back.
        self.smallest = 8 * self.stride if architecture == "PAN" else self.stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits of every pixel.

        Args:
            x_BCHW: float image ``(B, C, H, W)``.

        Returns:
            Logits ``(B, K, H, W)``.

        Raises:
            ValueError: if the image has another number of axes or channels.
        """
        if x_BCHW.ndim != 4 or x_BCHW.shape[1] != self.in_channels:
            raise ValueError(
                f"image of shape {tuple(x_BCHW.shape)}: expected (batch, {self.in_channels}, height, width)"
            )
        height, width = x_BCHW.shape[2:]
        missing_h, missing_w = self._missing(height), self._missing(width)
        top, left = missing_h // 2, missing_w // 2
        if missing_h or missing_w:
            x_BCHW = F.pad(x_BCHW, (left, missing_w - left, top, missing_h - top), mode="replicate")
        logits_BKHW: Tensor = self.network(x_BCHW)
        return logits_BKHW[:, :, top : top + height, left : left + width]

    def _missing(self, length: int) -> int:
        """Pixels to add for a length that is long enough and a multiple of the stride."""
        return max(self.smallest, -(-length // self.stride) * self.stride) - length


def resolve_encoder(encoder: str, encoder_weights: str | None) -> tuple[str, str | bool | None]:
    """Name and weights as segmentation-models-pytorch wants them.

    It takes the weights of a timm encoder as a tag within the name and a flag, those of its own encoders as a name.

    Args:
        encoder: as in ``SmpNetwork``.
        encoder_weights: as in ``SmpNetwork``.

    Returns:
        The full name and the weights to ask for.

    Raises:
        ValueError: if either is unknown; names the nearest valid ones.

    Example:
        >>> resolve_encoder("tu-resnet18", "a1_in1k")
        ('tu-resnet18.a1_in1k', True)
        >>> resolve_encoder("resnet18", "imagenet")
        ('resnet18', 'imagenet')
    """
    import timm
    from segmentation_models_pytorch.encoders import encoders

    # smp deprecates its own "timm-" family in favour of "tu-".
    own = [name for name in encoders if not name.startswith("timm-")]
    timm_names = [_TIMM_PREFIX + name for name in timm.list_models()]
    if encoder not in own and encoder not in timm_names:
        raise ValueError(_unknown("encoder", encoder, [*timm_names, *own]))
    if encoder_weights is None:
        return encoder, None
    if encoder in own:
        tags = list(encoders[encoder]["pretrained_settings"])
        default, full_name, weights = False, encoder, encoder_weights
    else:
        model = encoder.removeprefix(_TIMM_PREFIX)
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
        default = encoder_weights == "imagenet" and timm.is_model_pretrained(model)
        full_name, weights = encoder if default else f"{encoder}.{encoder_weights}", True
    if not default and encoder_weights not in tags:
        raise ValueError(_unknown(f"encoder_weights of {encoder}", encoder_weights, tags))
    return full_name, weights


def _create(
    architecture: Architecture, encoder: str, encoder_weights: str | None, in_channels: int, out_channels: int
) -> Any:  # noqa: ANN401  # the library's models share no typed base that declares their encoder
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise ImportError('SmpNetwork needs segmentation-models-pytorch: pip install "neurotrain[smp]"') from error
    name, weights = resolve_encoder(encoder, encoder_weights)
    # Vision transformers are built for one input size unless told otherwise.
    options = {"dynamic_img_size": True} if architecture == "DPT" else {}
    try:
        return smp.create_model(
            architecture,
            encoder_name=name,
            encoder_weights=weights,  # pyright: ignore[reportArgumentType]  # a flag for timm, declared as a name
            in_channels=in_channels,
            classes=out_channels,
            **options,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"encoder={encoder!r} does not go with architecture={architecture!r}: {error}") from error


def _unknown(key: str, value: str, choices: list[str]) -> str:
    nearest = difflib.get_close_matches(value, choices, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(nearest)}" if nearest else f"valid: {', '.join(choices[:10]) or 'none'}"
    return f"{key}={value!r} is unknown; {hint}"
