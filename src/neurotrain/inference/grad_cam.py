"""Where a network found the evidence for a class: Grad-CAM over any layer of feature maps.

Shape legend: ``B`` images, ``C`` channels, ``h``, ``w`` size of the map, ``H``, ``W`` size of the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def grad_cam(network: nn.Module, layer: nn.Module, image_BCHW: Tensor, classes: Tensor) -> Tensor:
    r"""Weigh the layer's channels by the mean gradient of a class's logit, and keep what speaks for the class.

    ``relu(\sum_c a_c A_c)`` with ``a_c`` the mean over pixels of ``d logit / d A_c``, then divided by its greatest
    value. Works inside ``inference_mode``; the weights' gradients are left as they are.

    Args:
        network: maps images to logits ``(B, K)``; used in the mode that it is in, which should be evaluation.
        layer: submodule whose output is ``(B, C, h, w)``.
        image_BCHW: float ``(B, C, H, W)``.
        classes: integers ``(B,)``: whose logit is looked at.

    Returns:
        float32 ``(B, H, W)`` in [0, 1], enlarged bilinearly; all 0 where nothing speaks for the class.

    Raises:
        ValueError: if the layer's output is no map of features, as in a vision transformer.

    Reference:
        Selvaraju et al., 2017 (arXiv:1610.02391), equations 1 and 2.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        # A leaf of its own: the graph then begins here, and no weight below it is reached.
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # what follows may work in place

    with torch.inference_mode(False), torch.enable_grad():
        handle = layer.register_forward_hook(keep)
        try:
            # A tensor of inference mode cannot be part of a graph; a copy of it can.
            logits = network(image_BCHW.clone())
        finally:
            handle.remove()
        features = kept[-1]
        if features.ndim != 4:
            raise ValueError(f"{type(layer).__name__} gives {tuple(features.shape)}: Grad-CAM needs (B, C, h, w)")
        chosen = logits.gather(1, classes.clone()[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, features)
        map_B1hw = F.relu((gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True)).detach().float()
        map_B1hw = map_B1hw / map_B1hw.amax((2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return F.interpolate(map_B1hw, size=image_BCHW.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
