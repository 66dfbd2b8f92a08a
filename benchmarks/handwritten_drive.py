"""What a researcher writes by hand to train drive_unet's network on DRIVE: torch, numpy and PIL, nothing else.

``python handwritten_drive.py FOLDER --steps 1`` reads every training image, builds the network and trains. It is the
peer of ``startup.py`` and imports nothing of neurotrain, Lightning or Hydra.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

Sample = tuple[Tensor, Tensor, Tensor]
"""Image ``(3, H, W)`` normalised inside the field of view, vessels ``(1, H, W)`` and field of view ``(1, H, W)``."""


class Block(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, channels: int, width: int) -> None:
        """Build for ``channels`` in and ``width`` out."""
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to ``(B, width, H, W)``."""
        hidden = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x), inplace=True)


class UNet(nn.Module):
    """Encoder-decoder with skip connections."""

    def __init__(self, widths: list[int]) -> None:
        """Build with the widths of the levels, finest first."""
        super().__init__()
        finer, coarser = widths[-2::-1], widths[:0:-1]
        self.down = nn.ModuleList(Block(c, w) for c, w in zip([3, *widths], widths, strict=False))
        self.reduce = nn.ModuleList(nn.Conv2d(c, w, 1, bias=False) for c, w in zip(coarser, finer, strict=True))
        self.up = nn.ModuleList(Block(2 * width, width) for width in finer)
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, 3, H, W)`` to logits ``(B, 1, H, W)``."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for reduce, block, skip in zip(self.reduce, self.up, reversed(skips[:-1]), strict=True):
            raised = F.interpolate(reduce(x), size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([raised, skip], 1))
        return self.head(x)


def load(folder: Path) -> list[Sample]:
    """Read DRIVE's training images, first manual labels and fields of view."""
    samples: list[Sample] = []
    for path in sorted((folder / "training" / "images").glob("*.tif")):
        number = path.name.partition("_")[0]
        image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255
        label = _binary(folder / "training" / "1st_manual" / f"{number}_manual1.gif")
        field = _binary(folder / "training" / "mask" / f"{number}_training_mask.gif")
        inside = image[:, field[0] > 0]
        mean, deviation = inside.mean(1)[:, None, None], inside.std(1)[:, None, None]
        samples.append(((image - mean) / deviation * field, label, field))
    return samples


def draw(samples: list[Sample], *, batch: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Cut, rotate and flip random patches."""

    def one() -> Tensor:
        image, label, field = samples[_integer(len(samples), generator)]
        whole = torch.cat([image, label, field])
        y, x = _integer(whole.shape[1] - size, generator), _integer(whole.shape[2] - size, generator)
        patch = torch.rot90(whole[:, y : y + size, x : x + size], _integer(4, generator), (1, 2))
        return patch.flip(2) if _integer(2, generator) else patch

    patches = torch.stack([one() for _ in range(batch)])
    return patches[:, :3], patches[:, 3:4], patches[:, 4:]


def masked_loss(logits: Tensor, label: Tensor, field: Tensor) -> Tensor:
    """Cross-entropy plus a quarter of the soft Dice loss inside the field of view."""
    logits = logits.float()
    cross_entropy = (F.binary_cross_entropy_with_logits(logits, label, reduction="none") * field).sum() / field.sum()
    predicted = logits.sigmoid() * field
    dice = (2 * (predicted * label).sum() + 1) / (predicted.sum() + (label * field).sum() + 1)
    return cross_entropy + 0.25 * (1 - dice)


def train(samples: list[Sample], network: nn.Module, *, steps: int, batch: int, size: int, bfloat16: bool) -> None:
    """Train with AdamW, a cosine schedule and gradient clipping."""
    generator = torch.Generator().manual_seed(0)
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    for _ in range(steps):
        image, label, field = draw(samples, batch=batch, size=size, generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = network(image.contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad()
        masked_loss(logits, label, field).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def main() -> None:
    """Train, then write when it was done and how large the network is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="DRIVE as it unpacks")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=128, help="edge of the patches")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--bfloat16", action="store_true", help="train under autocast")
    parser.add_argument("--stamp", type=Path, help="file for the time of the last step's end")
    given = parser.parse_args()
    torch.manual_seed(0)
    network = UNet(given.widths)
    samples = load(given.folder)
    train(samples, network, steps=given.steps, batch=given.batch, size=given.size, bfloat16=given.bfloat16)
    finished = time.time()
    if given.stamp is not None:
        parameters = sum(parameter.numel() for parameter in network.parameters())
        given.stamp.write_text(json.dumps({"finished": finished, "parameters": parameters}), encoding="utf-8")


def _binary(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("L")) > 127).float()[None]


def _integer(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (1,), generator=generator))


if __name__ == "__main__":
    main()
