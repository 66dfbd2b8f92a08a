from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from neurotrain.batch import ImageTextBatch
from neurotrain.networks.captioning import Captioner
from neurotrain.networks.text import WordTokenizer
from neurotrain.tasks import CaptioningTask, Constant

WORDS = (" a", " cat", " dog", " bird", " sits", " here")
CAPTIONS = ("a cat sits", "a dog", "a bird sits here")

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


class Toy(Captioner):
    """Says of an image what a table has for the mean of its pixels, place by place."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer, self.length = WordTokenizer(size=270, words=WORDS), 7
        self.said = nn.Linear(18, 270)

    def forward(self, image_BCHW: Tensor, tokens_BL: Tensor) -> Tensor:
        return self._logits(image_BCHW)[:, : tokens_BL.shape[1] - 1]

    def generate(self, image_BCHW: Tensor, *, beams: int = 1, length_penalty: float = 1.0) -> list[str]:
        assert not torch.is_autocast_enabled("cpu")
        return [self.tokenizer.decode(row) for row in self._logits(image_BCHW).argmax(2).tolist()]

    def _logits(self, image_BCHW: Tensor) -> Tensor:
        shown = image_BCHW.mean((1, 2, 3)).round().long()
        cells = shown[:, None] * 6 + torch.arange(6)
        return self.said(nn.functional.one_hot(cells, 18).float())


def _task(**changes: Any) -> CaptioningTask:  # noqa: ANN401
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "network": Toy(),
        "optimizer": partial(torch.optim.Adam, lr=0.3),
        "schedule": Constant(),
    }
    return CaptioningTask(**given | changes)


def _batch(index: int, *, captions: tuple[str, ...] = CAPTIONS) -> ImageTextBatch:
    image = torch.arange(3.0)[:, None, None, None].expand(3, 1, 4, 4)
    return {
        "image": image.clone(),
        "caption": list(captions),
        "id": [f"{index}-{row}" for row in range(3)],
        "source": ["toy"] * 3,
    }


def _loader(*batches: ImageTextBatch) -> Any:  # noqa: ANN401
    return DataLoader(list(batches), batch_size=None)  # pyright: ignore


def _trainer(**changes: Any) -> Trainer:  # noqa: ANN401
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    given = {"accelerator": "cpu", "max_epochs": 1, "enable_model_summary": False, "log_every_n_steps": 1}
    return Trainer(**given | quiet | changes)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_learns_and_scores_against_all_references(smoothing: float) -> None:
    task, trainer = _task(label_smoothing=smoothing), _trainer(max_epochs=12, precision="bf16-mixed")
    several = tuple(f"something else\n{caption}" for caption in CAPTIONS)
    trainer.fit(task, _loader(_batch(0), _batch(1)), _loader(_batch(0, captions=several)))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["val/bleu2"] == 1.0
    assert logged["val/rouge_l"] == 1.0
    assert logged["val/loss"] > 3  # of the first reference, which was never seen
    (tested,) = trainer.test(task, _loader(_batch(0), _batch(0)), verbose=False)
    assert tested["test/bleu1"] == 1.0
    assert len(task.report.rows()) == 3
    predicted: Any = trainer.predict(task, _loader(_batch(0, captions=("",) * 3)))
    assert predicted[0] == {"caption": list(CAPTIONS), "id": ["0-0", "0-1", "0-2"]}


def test_the_loss_leaves_padding_out_and_smooths_in_training_only() -> None:
    task = _task(label_smoothing=0.5)
    batch = _batch(0)
    tokens = task.network.tokenize(batch["caption"])
    logits = task.network(batch["image"], tokens)
    wanted = tokens[:, 1:].masked_fill(tokens[:, 1:] == task.tokenizer.pad, -100)
    smoothed = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), label_smoothing=0.5)
    trainer = _trainer(max_steps=1)
    seen: list[Tensor] = []
    task.training_step = _recorded(task.training_step, seen)  # pyright: ignore[reportAttributeAccessIssue]
    trainer.fit(task, _loader(batch))
    torch.testing.assert_close(seen[0], smoothed)
    trainer.test(task, _loader(batch), verbose=False)
    logits = task.network(batch["image"], tokens)
    plain = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
    assert float(trainer.callback_metrics["test/loss"]) == pytest.approx(plain.item())


def _recorded(step: Any, seen: list[Tensor]) -> Any:  # noqa: ANN401
    def recording(batch: ImageTextBatch, batch_idx: int) -> Tensor:
        loss = step(batch, batch_idx)
        seen.append(loss.detach().clone())
        return loss

    return recording


def test_several_captions_of_a_training_image_and_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="'0-0' has 2 captions"):
        _trainer().fit(_task(), _loader(_batch(0, captions=("a\nb", "c", "d"))))
    with pytest.raises(ValueError, match="beams=0"):
        _task(beams=0)
    with pytest.raises(ValueError, match="no effect with beams=1"):
        _task(length_penalty=0.5)
    with pytest.raises(ValueError, match="label_smoothing"):
        _task(label_smoothing=2.0)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    def run(epochs: int, ckpt: Path | None = None) -> tuple[CaptioningTask, Trainer]:
        seed_everything(0, verbose=False)
        task, trainer = _task(), _trainer(max_epochs=epochs)
        trainer.fit(task, _loader(_batch(0)), ckpt_path=None if ckpt is None else str(ckpt), weights_only=True)
        return task, trainer

    whole, _ = run(3)
    _, first = run(1)
    first.save_checkpoint(tmp_path / "one.ckpt")
    resumed, _ = run(3, tmp_path / "one.ckpt")
    assert torch.equal(whole.network.said.weight, resumed.network.said.weight)  # pyright: ignore
