"""The digits' experiments as they are shipped, on generated digits: teacher, students, and pictures of all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import neurotrain
from neurotrain.app.strict import ConfigurationError
from neurotrain.networks.classification import ResNetSmall

STUDENTS = {
    "dmd2": ("student", "critic", "teacher"),
    "consistency": ("student", "teacher"),
    "progressive": ("student", "teacher"),
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),  # nothing is held out
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits under ``data``, and a classifier and a teacher under ``runs``."""
    root = tmp_path_factory.mktemp("digits")
    write_digits(root / "data" / "MNIST" / "raw", count=64)
    classifier = root / "runs" / "digits" / "classifier" / "checkpoints" / "last.ckpt"
    classifier.parent.mkdir(parents=True)
    network = ResNetSmall(in_channels=1, widths=(4, 4), blocks=(1, 1))
    torch.save({"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()}}, classifier)
    run(root, "diffusion_teacher", "teacher", roles=("student",))
    return root


def write_digits(folder: Path, *, count: int) -> None:
    """Noise of ten brightnesses in the layout of MNIST's test digits."""
    folder.mkdir(parents=True)
    labels = (np.arange(count) % 10).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 60, (count, 28, 28))
    pixels = (noise + 20 * labels[:, None, None]).astype(np.uint8)
    for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / f"t10k-{name}-ubyte").write_bytes(header + array.tobytes())


def settings(root: Path, folder: str, roles: tuple[str, ...]) -> list[str]:
    small = [f"model.roles.{role}.network.{value}" for role in roles for value in ("widths=[8,8]", "embedding=16")]
    return [
        f"paths.data_dir={root / 'data'}",
        f"paths.runs_dir={root / 'runs'}",
        f"paths.run_dir={root / 'runs' / 'digits' / folder}",
        "data.batch_size=8",
        "data.train.count=32",
        "data.test.first=32",
        "data.samples_per_epoch=16",
        "model.pipeline.score.source.first=32",
        "model.pipeline.score.others.first=0",
        "model.pipeline.score.others.count=32",
        "model.pipeline.score.network.widths=[4,4]",
        "model.pipeline.score.network.blocks=[1,1]",
        "callbacks.samples.test_count=8",
        "callbacks.samples.teacher_steps=3",
        "callbacks.pictures.columns=3",
        "callbacks.pictures.teacher_steps=3",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
        *small,
    ]


def run(
    root: Path, name: str, folder: str, *, roles: tuple[str, ...], more: tuple[str, ...] = ()
) -> neurotrain.app.train.Run:
    steps = ("callbacks.samples.steps=[2]", "callbacks.pictures.steps=[2]") if roles == ("student",) else ()
    return neurotrain.train(neurotrain.compose(f"mnist_{name}", [*settings(root, folder, roles), *steps, *more]))


def test_students_of_a_trained_teacher_and_pictures_of_them_all(work: Path) -> None:
    runs = work / "runs" / "digits"
    for name, roles in STUDENTS.items():
        done = run(work, name, name, roles=roles)
        assert done.trainer.global_step == 2
        figures = {key for key in done.metrics if key.startswith("test/frechet")}
        assert {"test/frechet", "test/frechet_1", "test/frechet_4", "test/frechet_teacher_3"} <= figures
        assert (runs / name / "figures" / "samples_00000002.png").is_file()
        assert (runs / name / "export" / "student" / "model.safetensors").is_file()
    checkpoint = {name: runs / name / "checkpoints" / "last.ckpt" for name in STUDENTS}
    beside = f"beside={{consistency:'{checkpoint['consistency']}',progressive:'{checkpoint['progressive']}'}}"
    sampling = ("stage=sample", f"ckpt={checkpoint['dmd2']}", beside)
    sampled = run(work, "dmd2", "pictures", roles=STUDENTS["dmd2"], more=sampling)
    picture = sampled.directory / "figures" / "samples.png"
    # Ten rows instead of four: the teacher, and three numbers of steps of three students.
    assert _height(picture) > 2 * _height(runs / "dmd2" / "figures" / "samples_00000002.png")
    assert (sampled.directory / "summary.json").is_file()


def test_sampling_refuses_what_it_cannot_do(work: Path) -> None:
    teacher = work / "runs" / "digits" / "teacher" / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigurationError, match="callbacks=diffusion_pictures"):
        run(
            work,
            "diffusion_teacher",
            "x",
            roles=("student",),
            more=("stage=sample", f"ckpt={teacher}", "callbacks.pictures=null"),
        )
    more = ("stage=sample", f"ckpt={teacher}", "beside={other:'/nowhere/last.ckpt'}")
    with pytest.raises(ConfigurationError, match=r"beside\.other: no file"):
        run(work, "diffusion_teacher", "y", roles=("student",), more=more)
    with pytest.raises(ConfigurationError, match="beside: has no effect with stage=fit"):
        run(work, "diffusion_teacher", "z", roles=("student",), more=(f"beside={{other:'{teacher}'}}",))


def _height(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.height
