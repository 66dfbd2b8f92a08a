"""First losses of each experiment that a processor can run, made small: what a change must not move unnoticed.

python tests/golden/golden_losses.py DATA        rewrites losses.json; DATA holds the real datasets
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from pathlib import Path

import neurotrain

FILE = Path(__file__).parent / "losses.json"
STEPS = 3

_GAUSSIAN = ("adversarial", "consistency", "dmd2", "fine_tune", "mean_flow", "progressive")
_TRAJECTORIES = ["model.method.regression.count=24", "model.method.regression.teacher_steps=4"]
_DIGITS = ("student", "teacher")
_FORCED = ("width=16", "depth=1", "heads=2")
_COCO = ["data.decoder.preparation.resolution=32", "data.decoder.preparation.multiple=16"]
_VOLUMES = [
    "data.batch_size=2",
    "data.dataset.train=2",
    "data.dataset.test=1",
    "data.dataset.size=[24,20,16]",
    "data.train_transform.steps.patch.size=[16,16,8]",
    "data.samples_per_epoch=2",
    "model.inferer.window=[16,16,8]",
]

SMALL: dict[str, list[str]] = {
    "cifar10_vgg": ["data.batch_size=4", "model.network.widths=[4,8]", "model.network.blocks=[1,1]"],
    "brats_phantom": [
        *_VOLUMES,
        "model.network.width=8",
        "model.network.blocks_down=[1,1]",
        "model.network.blocks_up=[1]",
    ],
    "btcv_phantom": [
        *_VOLUMES,
        "model.network.channels=[4,8,8]",
        "model.network.strides=[[1,1,1],[2,2,2],[2,2,2]]",
        "model.network.deep_supervision=1",
    ],
    "coco_captioner": [
        "data.batch_size=2",
        "data.decoder.preparation.resolution=64",
        "model.network.image.name=test_resnet",
        "model.network.width=16",
        "model.network.layers=1",
        "model.network.tokenizer.size=300",
        "model.network.length=8",
    ],
    "coco_clip": [
        *_COCO,
        "data.batch_size=4",
        "data.samples_per_epoch=12",
        "model.network.image.name=test_resnet",
        "model.network.image.num_classes=16",
        "model.network.text.width=16",
        "model.network.text.layers=1",
    ],
    "coco_detection": [
        "data.train.count=6",
        "data.test.count=1",
        "model.network.channels=64",
        "model.network.head_depth=1",
        "model.network.fine=false",
        "model.network.min_size=48",
        "model.network.max_size=64",
    ],
    "drive_unet": [
        "data.validation=1",
        "data.batch_size=2",
        "data.samples_per_epoch=6",
        "data.train_transform.steps.patch.size=32",
        "model.network.widths=[4,8]",
        "model.threshold=0.5",
    ],
    "drive_unet_synthetic": [
        "data.dataset.size=[96,96]",
        "data.dataset.train=3",
        "data.dataset.test=1",
        "data.validation=1",
        "data.batch_size=2",
        "data.samples_per_epoch=6",
        "data.train_transform.steps.patch.size=32",
        "model.network.widths=[4,8]",
        "model.threshold=0.5",
    ],
    "gaussian_mixture_ode": [
        "data.batch_size=8",
        "model.method.count=24",
        "model.method.teacher_steps=4",
        "model.pipeline.reference=50",
        "model.roles.student.network.width=8",
    ],
    "mnist_diffusion_teacher": ["data.batch_size=4", "model.roles.student.network.widths=[8,16]"],
    **{
        f"mnist_{method}": [
            "data.batch_size=4",
            *(["model.method.update_ratio=1"] if method == "dmd2" else []),
            *(f"model.roles.{role}.network.widths=[8,16]" for role in roles),
        ]
        for method, roles in {"consistency": _DIGITS, "dmd2": (*_DIGITS, "critic"), "progressive": _DIGITS}.items()
    },
    "moving_shapes_diffusion_forcing": [
        "data.batch_size=4",
        "data.batches=3",
        *(f"model.roles.student.network.{value}" for value in _FORCED),
    ],
    "moving_shapes_self_forcing": [
        "data.batch_size=4",
        "data.batches=3",
        "model.roles.student.weights=null",
        *(f"model.roles.{role}.network.{value}" for role in ("student", "critic") for value in _FORCED),
    ],
    "mnist_resnet": ["data.batch_size=4", "model.network.widths=[4,8]", "model.network.blocks=[1,1]"],
    **{
        f"gaussian_mixture_{method}": [
            "data.batch_size=8",
            "model.pipeline.reference=50",
            "model.roles.student.network.width=8",
            *(_TRAJECTORIES if method in ("adversarial", "dmd2") else []),
        ]
        for method in _GAUSSIAN
    },
}
"""Overrides that make an experiment small."""

NEEDS = {
    "cifar10_vgg": "CIFAR10",
    "coco_captioner": "COCO-MINI",
    "coco_clip": "COCO-MINI",
    "coco_detection": "COCO-MINI",
    "drive_unet": "DRIVE",
    "mnist_consistency": "MNIST",
    "mnist_diffusion_teacher": "MNIST",
    "mnist_dmd2": "MNIST",
    "mnist_progressive": "MNIST",
    "mnist_resnet": "MNIST",
}
"""Folder of the real data without which an experiment cannot run."""

RARE = frozenset({"btcv_phantom", "mnist_dmd2", "mnist_progressive"})
"""Looked at with ``--all-kills`` only: others of their kind are quicker."""

_QUIET = [
    f"trainer.max_epochs={STEPS}",  # of one step each: what a task logs of an epoch is the loss of that step
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=0",
    "trainer.log_every_n_steps=1",
    "test=false",
    "logger=csv",
    *(
        f"callbacks.{name}=null"
        for name in ("figures", "predictions", "samples", "pictures", "table", "export", "progress")
    ),
    "callbacks.checkpoint=null",
]


def losses(experiment: str, *, data: Path, run_dir: Path) -> dict[str, list[float]]:
    """Train the small form for three steps.

    Args:
        experiment: one of :data:`SMALL`.
        data: folder of the datasets.
        run_dir: new.

    Returns:
        Each loss that was logged, by its name, step for step.
    """
    folder = [f"paths.data_dir={data}", f"paths.run_dir={run_dir}", f"paths.runs_dir={run_dir.parent}"]
    if experiment.startswith("mnist_") and "model.roles.teacher.network.widths=[8,16]" in SMALL[experiment]:
        _write_teacher(run_dir.parent / "digits" / "teacher" / "export" / "student" / "model.safetensors")
    neurotrain.train(neurotrain.compose(experiment, [*SMALL[experiment], *_QUIET, *folder]))
    with (run_dir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("train/") and "loss" in name]
    return {name: [float(row[name]) for row in rows if row[name]] for name in names}


def _write_teacher(path: Path) -> None:
    """A teacher of digits that answers something; a new one answers nothing, and its students have nothing to learn."""
    import torch
    from safetensors.torch import save_file

    from neurotrain.networks.denoisers import PixelUNet

    draw = torch.Generator().manual_seed(0)
    network = PixelUNet(patch=2, widths=(8, 16), blocks=1, num_classes=10)
    state = {name: torch.randn(value.shape, generator=draw) / 5 for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)


def main() -> None:
    """Rewrite the file."""
    data = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        made = {name: losses(name, data=data, run_dir=Path(folder) / name) for name in sorted(SMALL)}
    FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
