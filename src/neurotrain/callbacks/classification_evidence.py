"""Which pictures of a network's evidence can be made, and making them."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from neurotrain.inference import attention_evidence, grad_cam
from neurotrain.networks.classification import Classifier
from neurotrain.tasks import ClassificationTask

Evidence = Literal["grad_cam", "attention_rollout", "last_attention"]
"""``grad_cam``: what speaks for a class, of networks with maps; ``attention_rollout`` and ``last_attention``: where a
transformer's head looks, followed through all layers or in the last one alone, whatever the class."""

TITLES: dict[Evidence, str] = {
    "grad_cam": "Grad-CAM",
    "attention_rollout": "attention followed through all layers",
    "last_attention": "attention of the last layer",
}


def refusal(network: nn.Module, kind: Evidence) -> str | None:
    """Why a network cannot show this, or None where it can.

    Args:
        network: of the task.
        kind: see :data:`Evidence`.

    Example:
        >>> from neurotrain.networks.classification import ResNetSmall
        >>> refusal(ResNetSmall(), "grad_cam"), refusal(ResNetSmall(), "last_attention")
        (None, 'ResNetSmall has no attention over patches of the image')
    """
    if not isinstance(network, Classifier):
        return f"{type(network).__name__} does not tell where it looks, as networks that derive from Classifier do"
    try:
        network.evidence_layer() if kind == "grad_cam" else network.token_layout()
    except ValueError as error:
        return str(error)
    return None


def check_evidence(task: ClassificationTask, asked: tuple[Evidence, ...], *, owner: str) -> None:
    """Refuse what the network cannot show, before any work is done.

    Args:
        task: of the run.
        asked: of the user.
        owner: the callback, for the message.

    Raises:
        ValueError: naming the evidence, the network and what it can show.
    """
    can = [kind for kind in get_args(Evidence) if refusal(task.network, kind) is None]
    for kind in asked:
        reason = refusal(task.network, kind)
        if reason is not None:
            raise ValueError(f"{owner}: evidence={list(asked)}: {kind}: {reason}; it can show {can or 'nothing'}")
    if task.mode == "multilabel" and "grad_cam" in asked:
        raise ValueError(f"{owner}: evidence={list(asked)}: grad_cam looks at one class, loss.mode is 'multilabel'")


def known_evidence(asked: tuple[Evidence, ...], *, owner: str) -> tuple[Evidence, ...]:
    """Return what was asked for as a tuple.

    Raises:
        ValueError: if there is no such evidence, or one stands there twice.
    """
    asked = tuple(asked)
    if set(asked) - set(get_args(Evidence)) or len(set(asked)) != len(asked):
        raise ValueError(f"{owner}: evidence={list(asked)}: choose each once from {list(get_args(Evidence))}")
    return asked


def seen_evidence(task: ClassificationTask, kind: Evidence, image: Tensor, classes: Tensor) -> Tensor:
    """Where the network looked, or found what speaks for a class.

    Args:
        task: in evaluation mode.
        kind: what :func:`refusal` has nothing against.
        image: ``(B, C, H, W)``.
        classes: integers ``(B,)``, which ``grad_cam`` looks at.

    Returns:
        float32 ``(B, H, W)`` in [0, 1] on the CPU.
    """
    network = task.network
    assert isinstance(network, Classifier)
    # As the task's own logits: in float32, whatever the training's precision.
    with torch.autocast(image.device.type, enabled=False):
        if kind == "grad_cam":
            return grad_cam(task, network.evidence_layer(), image.float(), classes).cpu()
        return attention_evidence(network, image.float(), kind=kind, run=task).cpu()


def overlaid(picture: Tensor, evidence: Tensor, *, alpha: float = 0.6) -> Tensor:
    """Lay evidence over a picture, in the colours of the figures.

    Args:
        picture: float ``(H, W, 3)`` in [0, 1].
        evidence: float ``(H, W)`` in [0, 1].
        alpha: share of the evidence's colour.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    from matplotlib import colormaps

    colours = torch.from_numpy(colormaps["magma"](evidence.numpy())[..., :3]).float()
    return (((1 - alpha) * picture + alpha * colours) * 255).round().to(torch.uint8)
