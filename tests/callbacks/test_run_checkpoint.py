"""Checkpoints: complete or absent, loadable without running code, and the right ones kept."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from callback_toys import Fail, Fixed, ToyLoader, ToyTask, make_trainer, seed, val_loader
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from neurotrain.callbacks import RunCheckpoint, WeightAveraging, find_last
from neurotrain.callbacks.checkpoint_files import BEST, link, publish
from neurotrain.callbacks.rng import rng_state, set_rng_state


class Score(Callback):
    """Replaces the validation score of each epoch."""

    def __init__(self, scores: list[float], *, interval: int = 1) -> None:
        self.scores = iter(scores)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("val/given", next(self.scores))


def _fit(folder: Path, scores: list[float], *others: Callback, **saving: Any) -> RunCheckpoint:  # noqa: ANN401
    seed()
    checkpoint = RunCheckpoint(monitor="val/given", **saving)
    trainer = make_trainer(folder, [Score(scores), checkpoint, *others], max_epochs=len(scores))
    trainer.fit(ToyTask(), ToyLoader(batches=2), val_loader(1))
    return checkpoint


def _names(folder: Path) -> list[str]:
    """Of the checkpoints; each has its marker and no marker is without one."""
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    marked = [name.removesuffix(".whole") for name in names if name.endswith(".whole")]
    assert marked == [name for name in names if name.startswith("step-") and name.endswith(".ckpt")]
    return [name for name in names if not name.endswith(".whole")]


def test_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    checkpoint = _fit(tmp_path, [0.1, 0.9, float("nan"), 0.3, 0.5], keep=1)
    assert _names(tmp_path) == ["best.ckpt", "last.ckpt", "step-00000004.ckpt", "step-00000010.ckpt"]
    assert checkpoint.best_score == pytest.approx(0.9)
    assert checkpoint.best_model_path == str(tmp_path / "checkpoints" / "best.ckpt")
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert (best["global_step"], last["global_step"]) == (4, 10)
    assert best["callbacks"]["RunCheckpoint"]["best"] == "step-00000004.ckpt"
    assert find_last(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-00000010.ckpt"


def test_lower_may_be_better_and_nan_is_never_best(tmp_path: Path) -> None:
    checkpoint = _fit(tmp_path, [float("nan"), 0.4, 0.2, 0.2, float("-inf")], mode="min", keep=1)
    assert checkpoint.best_score == pytest.approx(0.2)
    assert _names(tmp_path) == ["best.ckpt", "last.ckpt", "step-00000006.ckpt", "step-00000010.ckpt"]


def test_an_improvement_is_saved_between_regular_checkpoints(tmp_path: Path) -> None:
    _fit(tmp_path, [0.1, 0.9, 0.3], every_n_epochs=99)
    assert _names(tmp_path) == ["best.ckpt", "last.ckpt", "step-00000004.ckpt", "step-00000006.ckpt"]


def test_the_checkpoint_holds_plain_types_with_every_callback(tmp_path: Path) -> None:
    stop = EarlyStopping(monitor="val/given", mode="max", patience=5)
    _fit(tmp_path, [0.1, 0.2], WeightAveraging(), stop)
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["callbacks"][stop.state_key]["best_score"] == pytest.approx(0.2)
    assert state["callbacks"]["WeightAveraging"]["updates"] == 4
    assert state["callbacks"]["RunCheckpoint"]["position"] == "epoch_end"


def test_early_stopping_stops_at_nan_and_its_last_checkpoint_says_so(tmp_path: Path) -> None:
    stop = EarlyStopping(monitor="val/given", mode="max", patience=5)
    _fit(tmp_path, [0.1, float("nan"), 0.3], stop)
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4
    assert "not finite" in state["callbacks"][stop.state_key]["stopping_reason_message"]


def test_runs_after_the_average_whatever_the_order(tmp_path: Path) -> None:
    average = WeightAveraging()
    trainer = make_trainer(tmp_path, [RunCheckpoint(every_n_steps=1), average], max_steps=1)
    trainer.fit(ToyTask(), ToyLoader())
    state = torch.load(tmp_path / "checkpoints" / "step-00000001.ckpt", weights_only=True)
    assert state["callbacks"]["WeightAveraging"]["updates"] == 1


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / ".step-00000007.ckpt.tmp").write_bytes(b"half")
    (folder / ".last.ckpt.tmp").write_bytes(b"half")
    _fit(tmp_path, [0.1])
    assert _names(tmp_path) == ["best.ckpt", "last.ckpt", "step-00000002.ckpt"]


def test_find_last_skips_torn_files(tmp_path: Path) -> None:
    assert find_last(tmp_path / "absent") is None
    whole = tmp_path / "step-00000002.ckpt"
    torch.save({"a": torch.zeros(1000)}, whole)
    torn = tmp_path / "step-00000003.ckpt"
    torn.write_bytes(whole.read_bytes()[:-30])
    (tmp_path / "last.ckpt").write_bytes(whole.read_bytes()[:50])
    (tmp_path / ".step-00000009.ckpt.tmp").write_bytes(whole.read_bytes())
    assert find_last(tmp_path) == whole
    (tmp_path / "last.ckpt").write_bytes(whole.read_bytes())
    assert find_last(tmp_path) == tmp_path / "last.ckpt"


def test_a_link_always_resolves_while_it_is_replaced(tmp_path: Path) -> None:
    first, second = tmp_path / "step-00000001.ckpt", tmp_path / "step-00000002.ckpt"
    first.write_text("1")
    second.write_text("2")
    link(first, BEST)
    link(first, BEST)  # onto itself
    with (tmp_path / BEST).open() as reader:
        link(second, BEST)
        first.unlink()
        assert reader.read() == "1"
    assert (tmp_path / BEST).read_text() == "2"
    second.unlink()
    assert (tmp_path / BEST).read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == [BEST]


def test_symbolic_link_where_hard_ones_are_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    target = tmp_path / "step-00000001.ckpt"
    target.write_text("1")
    link(target, BEST)
    assert (tmp_path / BEST).readlink() == Path("step-00000001.ckpt")
    assert (tmp_path / BEST).read_text() == "1"


def test_publish_replaces(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / ".a.tmp").write_text("new")
    publish(tmp_path / ".a.tmp", tmp_path / "a")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


class BrokenLoader(ToyLoader):
    """Fails instead of giving its fourth batch."""

    def _pass(self, epoch: int, start: int) -> Any:  # noqa: ANN401
        for index, batch in enumerate(super()._pass(epoch, start)):
            if index == 3:
                raise OSError("the disk is gone")
            yield batch


def test_an_error_between_steps_saves(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, [RunCheckpoint()], max_epochs=1)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.fit(ToyTask(), BrokenLoader())
    assert _names(tmp_path) == ["last.ckpt", "step-00000003.ckpt"]


def test_an_error_between_steps_does_not_save_if_told_so(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, [RunCheckpoint(save_on_exception=False)], max_epochs=1)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.fit(ToyTask(), BrokenLoader())
    assert _names(tmp_path) == []


@pytest.mark.parametrize("hook", ["on_before_backward", "on_validation_batch_end"])
def test_an_error_within_a_step_or_a_validation_does_not_save(tmp_path: Path, hook: str) -> None:
    trainer = make_trainer(tmp_path, [RunCheckpoint(), WeightAveraging(), Fail(hook)], max_epochs=1)
    with pytest.raises(RuntimeError, match="in on_"):
        trainer.fit(ToyTask(), ToyLoader(), val_loader())
    assert _names(tmp_path) == []


def test_an_error_before_a_resumed_run_trains_leaves_its_checkpoint_alone(tmp_path: Path) -> None:
    _fit(tmp_path, [0.1])
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.stat()
    trainer = make_trainer(tmp_path, [RunCheckpoint(), Fail("on_train_start")], max_epochs=2)
    with pytest.raises(RuntimeError, match="in on_train_start"):
        trainer.fit(ToyTask(), ToyLoader(batches=2), ckpt_path=last, weights_only=True)
    assert (last.stat().st_ino, last.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_disk_that_is_full_does_not_hide_the_first_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError("no space left")

    trainer = make_trainer(tmp_path, [RunCheckpoint()], max_epochs=1)
    monkeypatch.setattr(trainer, "save_checkpoint", full)
    with pytest.raises(OSError, match="the disk is gone") as caught:
        trainer.fit(ToyTask(), BrokenLoader())
    assert any("no space left" in note for note in caught.value.__notes__)


def test_an_unknown_monitor_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, [RunCheckpoint(monitor="val/scor")], max_epochs=1)
    with pytest.raises(ValueError, match=r"monitor='val/scor' is not logged; nearest: \['val/score'\]"):
        trainer.fit(ToyTask(), ToyLoader(), val_loader())


def test_a_trial_run_leaves_nothing(tmp_path: Path) -> None:
    make_trainer(tmp_path, [RunCheckpoint(every_n_steps=1)], fast_dev_run=2).fit(ToyTask(), ToyLoader(), val_loader())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "settings", [{"keep": 0}, {"every_n_steps": 0}, {"every_n_epochs": 0}, {"mode": "up"}, {"on_disk_full": "wait"}]
)
def test_refuses_senseless_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(settings))}="):
        RunCheckpoint(**settings)


def test_best_of_another_folder_is_forgotten(tmp_path: Path) -> None:
    _fit(tmp_path / "old", [0.9])
    seed()
    checkpoint = RunCheckpoint(monitor="val/given")
    trainer = make_trainer(tmp_path / "new", [Score([0.5]), checkpoint], max_epochs=2)
    last = tmp_path / "old" / "checkpoints" / "last.ckpt"
    trainer.fit(ToyTask(), ToyLoader(batches=2), val_loader(1), ckpt_path=last, weights_only=True)
    assert checkpoint.best_score == pytest.approx(0.5)
    assert _names(tmp_path / "new") == ["best.ckpt", "last.ckpt", "step-00000004.ckpt"]


def test_testing_an_old_checkpoint_does_not_change_what_is_best(tmp_path: Path) -> None:
    seed()
    checkpoint = RunCheckpoint(monitor="val/given", keep=9)
    trainer = make_trainer(tmp_path, [Score([0.1, 0.9]), checkpoint], max_epochs=2)
    task = ToyTask()
    trainer.fit(task, ToyLoader(batches=2), val_loader(1))
    old = tmp_path / "checkpoints" / "step-00000002.ckpt"
    trainer.test(task, Fixed(val_loader(1).batches), ckpt_path=old, verbose=False, weights_only=True)
    assert checkpoint.best_score == pytest.approx(0.9)
    trainer.test(task, Fixed(val_loader(1).batches), ckpt_path="best", verbose=False, weights_only=True)


def test_random_states_go_through_a_safe_file(tmp_path: Path) -> None:
    random.gauss(0, 1)  # leaves half a pair in the generator
    np.random.standard_normal()
    torch.save(rng_state(), tmp_path / "rng")

    def draw() -> list[float]:
        numpy = [float(np.random.standard_normal()), float(np.random.rand())]
        return [random.gauss(0, 1), random.random(), *numpy, torch.rand(1).item()]

    expected = draw()
    assert draw() != expected
    set_rng_state(torch.load(tmp_path / "rng", weights_only=True))
    assert draw() == expected
