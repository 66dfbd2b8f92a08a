"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import torch
from callback_toys import Fail, Fixed, ToyLoader, ToyTask, make_trainer, seed, val_loader
from rich.console import Console

from neurotrain.callbacks import Progress
from neurotrain.callbacks.progress import memory_text

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def _terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _fit(folder: Path, progress: Progress, **settings: object) -> None:
    seed()
    limits = {"max_epochs": 2, **settings}
    trainer = make_trainer(folder, [progress], enable_progress_bar=True, enable_checkpointing=False, **limits)
    trainer.fit(ToyTask(), ToyLoader(), val_loader())


def test_on_a_terminal(tmp_path: Path) -> None:
    console = _terminal()
    _fit(tmp_path, Progress(console=console, refresh_per_second=1e9))
    text = _text(console)
    assert "epoch 1/2" in text
    assert "epoch 2/2" in text
    assert "step 12/12" in text
    assert "Validation" in text
    for pattern in (r"steps/s", r"samples/s", r"ETA 0:00", r"loss \d", r"val/score -\d", r"RAM \d+\.\d GiB"):
        assert re.search(pattern, text), pattern
    assert text.count(HIDE) == text.count(SHOW) == 1


def test_the_terminal_is_redrawn_a_few_times_a_second_only(tmp_path: Path) -> None:
    seldom = _terminal()
    _fit(tmp_path, Progress(console=seldom, refresh_per_second=1e-3))
    # The first batch; then what always is drawn: the ends of two epochs, of the training, and as it is left behind.
    assert _text(seldom).count("steps/s") == 5
    assert _text(seldom).count("Validation") == 2


def test_elsewhere_a_plain_line_when_the_last_one_is_old(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=20)
    _fit(tmp_path, Progress(console=console, interval_seconds=0), max_epochs=3)
    lines = _text(console).splitlines()
    assert [line[:9] for line in lines if line.startswith("epoch 3")] == ["epoch 3/3"]
    assert "\x1b" not in _text(console)
    assert lines[-1].startswith("epoch 3/3  step 18/18  loss ")
    assert all(len(line) > 20 for line in lines)  # not wrapped

    quiet = Console(file=io.StringIO(), width=200)
    _fit(tmp_path, Progress(console=quiet, interval_seconds=3600), max_epochs=3)
    assert len(_text(quiet).splitlines()) == 1


def test_the_standard_output_is_looked_up_when_it_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _fit(tmp_path, Progress())
    assert "step 12/12" in capsys.readouterr().out


def test_runs_without_an_end(tmp_path: Path) -> None:
    console = _terminal()
    _fit(tmp_path, Progress(console=console, refresh_per_second=1e9), max_epochs=-1, max_steps=4)
    assert "epoch 1 " in _text(console)
    assert "step 4/4" in _text(console)


@pytest.mark.parametrize("hook", ["on_before_backward", "on_validation_batch_end"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_terminal_is_given_back_after_an_error(tmp_path: Path, hook: str, error: type[BaseException]) -> None:
    console = _terminal()
    progress = Progress(console=console)
    trainer = make_trainer(
        tmp_path, [progress, Fail(hook, error)], enable_progress_bar=True, enable_checkpointing=False, max_epochs=1
    )
    with pytest.raises(SystemExit if error is KeyboardInterrupt else RuntimeError):
        trainer.fit(ToyTask(), ToyLoader(), val_loader())
    assert _text(console).count(HIDE) == _text(console).count(SHOW) == 1
    console.print("usable")


def test_evaluations_on_their_own(tmp_path: Path) -> None:
    console = _terminal()
    progress = Progress(console=console, refresh_per_second=1e9)
    trainer = make_trainer(tmp_path, [progress], enable_progress_bar=True, enable_checkpointing=False)
    task, batches = ToyTask(), Fixed(val_loader(3).batches)
    trainer.validate(task, batches, verbose=False)
    trainer.test(task, batches, verbose=False)
    trainer.predict(task, batches)
    for name in ("Validation", "Testing", "Predicting"):
        assert re.search(rf"{name} .* 3/3", _text(console)), name
    assert _text(console).count(HIDE) == _text(console).count(SHOW) == 3


def test_disabled_it_says_nothing(tmp_path: Path) -> None:
    for console in (_terminal(), Console(file=io.StringIO())):
        progress = Progress(console=console)
        progress.disable()
        _fit(tmp_path, progress)
        assert _text(console) == ""
        progress.enable()
        progress.print("hello", 3)
        assert "hello 3" in _text(console)


def test_memory_is_plausible() -> None:
    match = re.fullmatch(r"RAM (?:peak )?(\d+\.\d) GiB", memory_text(torch.device("cpu")))
    assert match is not None
    assert 0.1 <= float(match[1]) < 1000


@pytest.mark.parametrize("settings", [{"interval_seconds": -1.0}, {"refresh_per_second": 0.0}])
def test_refuses_senseless_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(settings))}="):
        Progress(**settings)
