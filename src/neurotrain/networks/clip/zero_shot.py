"""Classification by the names of classes: a class is the mean of what is said about it.

Shape legend: ``K`` classes, ``E`` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.networks.clip.base import ClipNetwork

GENERAL_TEMPLATES = (
    "{}",
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of one {}.",
    "a photo of a big {}.",
    "a photo of a small {}.",
    "a blurry photo of a {}.",
    "a dark photo of a {}.",
    "a bright photo of a {}.",
    "a close photo of a {}.",
    "a photo of a {} from far away.",
    "a cropped photo of a {}.",
    "a black and white photo of a {}.",
    "a drawing of a {}.",
    "a painting of a {}.",
    "there is a {} in the scene.",
)
"""For photographs, in the manner of Radford et al., 2021 (arXiv:2103.00020), section 3.1.4."""

MEDICAL_TEMPLATES = (
    "{}",
    "an image of {}.",
    "a medical image of {}.",
    "a medical image showing {}.",
    "a radiology image of {}.",
    "a scan of a patient with {}.",
    "an image of a patient with {}.",
    "findings consistent with {}.",
    "findings suggesting {}.",
    "evidence of {}.",
    "there is {}.",
    "{} is present.",
    "{} can be seen.",
)
"""For findings (``pleural effusion``), not for persons or organs alone."""

Style = Literal["general", "medical", "name"]
"""Templates by a word."""

_STYLES: dict[str, tuple[str, ...]] = {
    "general": GENERAL_TEMPLATES,
    "medical": MEDICAL_TEMPLATES,
    "name": ("{}",),
}


class Prompts:
    """Sentences about a class, with ``{}`` where its name stands.

    Args:
        templates: ``general`` (photographs) or ``medical`` (findings) for those of this module, ``name`` for the bare
            name, or one's own.

    Raises:
        ValueError: if the choice is unknown, there is none, or one has not exactly one ``{}``.

    Example:
        >>> Prompts(templates=("a photo of a {}.",)).about("cat")
        ['a photo of a cat.']
    """

    def __init__(self, *, templates: Style | tuple[str, ...] = "general") -> None:
        if isinstance(templates, str):
            if templates not in _STYLES:
                raise ValueError(f"templates={templates!r}: one of {', '.join(map(repr, _STYLES))}, or a list of them")
            templates = _STYLES[templates]
        if not templates:
            raise ValueError("templates=(): need at least one; 'name' is the bare name")
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"templates: {template!r} needs {{}} once, where the name of the class stands")
        self.templates = tuple(templates)

    def about(self, name: str) -> list[str]:
        """The sentences about one class."""
        return [template.replace("{}", name) for template in self.templates]


def class_features(network: ClipNetwork, class_names: Sequence[str], *, prompts: Prompts) -> Tensor:
    """What each class is in the space of images: the mean of the unit vectors of its sentences, as a unit vector.

    Args:
        network: in evaluation mode.
        class_names: K names.
        prompts: sentences about them.

    Returns:
        float32 ``(K, E)`` on the network's device. ``scale * images @ features.T`` are logits.

    Raises:
        ValueError: if there is no class.

    Reference:
        Radford et al., 2021 (arXiv:2103.00020), section 3.1.4: an ensemble in the space of embeddings.
    """
    if not class_names:
        raise ValueError("class_names=(): need at least one")
    device = network.log_scale.device
    found: list[Tensor] = []
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for name in class_names:
            sentences_TE = network.encode_text(network.tokenize(prompts.about(name)).to(device))
            found.append(F.normalize(sentences_TE.mean(0), dim=0))
    return torch.stack(found)
