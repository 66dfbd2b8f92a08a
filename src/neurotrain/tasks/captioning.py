"""Captioning: one network that writes what it sees, trained on the next word, scored on whole captions."""

from __future__ import annotations

from typing import TypedDict

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from neurotrain.batch import ImageTextBatch
from neurotrain.losses.options import bounded
from neurotrain.losses.tokens import token_cross_entropy
from neurotrain.metrics.captioning import CaptionReport
from neurotrain.metrics.functional.text_tokenizers import TextTokenizer
from neurotrain.metrics.sample_mean import SampleMean
from neurotrain.networks.captioning import Captioner
from neurotrain.networks.captioning.base import told_tokens
from neurotrain.networks.text import Tokenizer
from neurotrain.tasks.optimization import OptimizerFactory, optimizer_and_schedule
from neurotrain.tasks.sample_losses import sample_losses
from neurotrain.tasks.schedules import Schedule
from neurotrain.tasks.training_figures import log_step, over_ranks


class CaptionPrediction(TypedDict):
    """What an evaluation or prediction step hands to the callbacks.

    Attributes:
        caption: B texts.
        id: B names.
    """

    caption: list[str]
    id: list[str]


class CaptioningTask(LightningModule):
    """Train, validate, test and predict with any captioner.

    Training is teacher forcing: the loss of each word, those before it given, padding left out. Evaluation writes
    captions, in float32 whatever the training precision, and scores each image once, by its id, against all its
    references; ``loss`` there is that of the first reference.

    Args:
        network: writes captions; its vocabulary is learned from the training captions where it has none.
        optimizer: factory over parameter groups.
        schedule: factor of the learning rate at each optimizer step.
        label_smoothing: in [0, 1], of the training loss; evaluation tells the loss without it.
        beams: sequences that are kept while a caption is written; 1 takes the most probable word at each place.
        length_penalty: see :meth:`neurotrain.networks.captioning.Captioner.generate`; with several beams only.
        score_tokenizer: how texts become words, see :class:`neurotrain.metrics.captioning.CaptionReport`.

    Raises:
        ValueError: if a number is out of range or has no effect, or a choice is unknown.

    Reference:
        Vinyals et al., 2015 (arXiv:1411.4555), section 3.
    """

    def __init__(
        self,
        *,
        network: Captioner,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        label_smoothing: float = 0.0,
        beams: int = 1,
        length_penalty: float = 1.0,
        score_tokenizer: TextTokenizer = "rouge",
    ) -> None:
        super().__init__()
        if beams < 1 or length_penalty < 0:
            raise ValueError(f"beams={beams}, length_penalty={length_penalty}: need at least 1, and at least 0")
        if beams == 1 and length_penalty != 1.0:
            raise ValueError(
                f"length_penalty={length_penalty} has no effect with beams=1: there is nothing to choose from"
            )
        self.network = network
        self.label_smoothing = bounded("label_smoothing", label_smoothing, low=0, high=1)
        self.beams, self.length_penalty = beams, length_penalty
        self._optimizer, self._schedule = optimizer, schedule
        # Sums of the epoch so far: loss, batches; a buffer, so that a resumed epoch goes on.
        self.running: Tensor
        self.register_buffer("running", torch.zeros(2, dtype=torch.float64))
        self.validation = CaptionReport(tokenizer=score_tokenizer)
        self.report = CaptionReport(tokenizer=score_tokenizer)
        self.evaluation_loss = SampleMean()

    @property
    def tokenizer(self) -> Tokenizer:
        """The network's."""
        return self.network.tokenizer

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build optimizer and schedule over the horizon that the trainer derives."""
        return optimizer_and_schedule(
            self.network,
            optimizer=self._optimizer,
            schedule=self._schedule,
            total_steps=self.trainer.estimated_stepping_batches,
        )

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch, each image with one caption.

        Raises:
            ValueError: if an image has several captions.
        """
        for name, caption in zip(batch["id"], batch["caption"], strict=True):
            if "\n" in caption:
                raise ValueError(
                    f"{name!r} has {caption.count(chr(10)) + 1} captions: training takes one, as the decoder's "
                    "choice='first' or 'random', or the transform ImageOneCaption, gives it"
                )
        loss = self._loss(batch["image"], batch["caption"], label_smoothing=self.label_smoothing)
        self.running.add_(torch.stack((loss.detach().double(), torch.ones_like(loss, dtype=torch.float64))))
        log_step(self, loss, batch_size=len(batch["id"]))
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss, then start anew."""
        total = over_ranks(self, self.running)
        self.log("train/loss", (total[0] / total[1].clamp(min=1)).float())
        self.running.zero_()

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> CaptionPrediction:
        """Caption and score one batch of validation images."""
        return self._evaluate(batch, self.validation)

    def on_validation_epoch_end(self) -> None:
        """Log the validation figures."""
        self._tell("val", self.validation)
        self.validation.reset()

    def on_test_epoch_start(self) -> None:
        """Forget the images of an earlier test."""
        self.report.reset()

    def test_step(self, batch: ImageTextBatch, batch_idx: int) -> CaptionPrediction:
        """Caption and score one batch of test images."""
        return self._evaluate(batch, self.report)

    def on_test_epoch_end(self) -> None:
        """Log every figure of the report, whose images stay readable until the next test starts."""
        self._tell("test", self.report)

    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> CaptionPrediction:
        """Caption one batch; captions that it has are not read."""
        return {"caption": self.write(batch["image"]), "id": batch["id"]}

    def write(self, image: Tensor) -> list[str]:
        """A caption for each image ``(B, C, H, W)``, in float32."""
        with torch.autocast(image.device.type, enabled=False):
            return self.network.generate(image, beams=self.beams, length_penalty=self.length_penalty)

    def _loss(self, image: Tensor, captions: list[str], *, label_smoothing: float) -> Tensor:
        return token_cross_entropy(*self._told(image, captions), label_smoothing=label_smoothing)

    def _told(self, image: Tensor, captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits ``(B, L, V)``, the tokens ``(B, L)`` that they are of, and which of them count."""
        tokens_BL = self.network.tokenize(captions).to(image.device)
        valid_BL = told_tokens(tokens_BL, end=self.tokenizer.end)
        return self.network(image, tokens_BL), tokens_BL[:, 1:], valid_BL[:, 1:]

    def _tell(self, stage: str, report: CaptionReport) -> None:
        figures = {"loss": self.evaluation_loss.compute(), **report.compute()}
        self.log_dict({f"{stage}/{name}": value.float() for name, value in figures.items()})
        self.evaluation_loss.reset()

    def _evaluate(self, batch: ImageTextBatch, report: CaptionReport) -> CaptionPrediction:
        references = [caption.split("\n") for caption in batch["caption"]]
        with torch.autocast(batch["image"].device.type, enabled=False):
            told = self._told(batch["image"], [entry[0] for entry in references])
        # Caption by caption, each by its tokens: the mean over all tokens, however they were dealt out.
        self.evaluation_loss.update(
            sample_losses(token_cross_entropy, *told), ids=batch["id"], weights=told[2].sum(1).float()
        )
        captions = self.write(batch["image"])
        report.update(captions, references, ids=batch["id"])
        return {"caption": captions, "id": batch["id"]}
