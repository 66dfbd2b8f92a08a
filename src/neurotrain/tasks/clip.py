"""Contrastive training of images and texts: one network, one loss, retrieval and zero-shot classification."""

from __future__ import annotations

import logging
from typing import TypedDict

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from neurotrain.batch import ClassificationBatch, ImageTextBatch
from neurotrain.losses.contrastive import ContrastiveLoss
from neurotrain.metrics import ClassificationReport, ImageTextRetrieval
from neurotrain.networks.clip import ClipNetwork, Prompts, class_features
from neurotrain.networks.text import Tokenizer, WordTokenizer
from neurotrain.tasks.optimization import OptimizerFactory, optimizer_and_schedule
from neurotrain.tasks.schedules import Schedule
from neurotrain.tasks.training_figures import log_step, over_ranks

logger = logging.getLogger(__name__)

_TEXTS_AT_ONCE = 256
_SAME_TOWER = 0.99
"""Least cosine of a text's stored feature, perhaps in half precision, with what the tower says of it now."""


class ClipPrediction(TypedDict):
    """What an evaluation or prediction step hands to the callbacks.

    Attributes:
        image_features: float32 unit vectors ``(B, E)``.
        text_features: float32 unit vectors ``(M, E)`` of every caption of the batch; M is 0 where there are none.
        text_image: int64 ``(M,)``, the image of the batch that each caption is about.
        captions: M texts.
        probabilities: float32 ``(B, K)`` of the classes by their names; None where no classes were named.
        id: B names.
    """

    image_features: Tensor
    text_features: Tensor
    text_image: Tensor
    captions: list[str]
    probabilities: Tensor | None
    id: list[str]


class ClipTask(LightningModule):
    """Train, validate, test and predict with a network of images and texts.

    Training takes one caption an image and contrasts the pairs of all processes. Evaluation takes all captions of an
    image, and scores retrieval in both directions over the whole data set; batches with labels in place of captions are
    classified by the names of their classes. It runs in float32, whatever the training precision.

    Args:
        network: two towers into one space.
        loss: of pairs of unit vectors.
        optimizer: factory over parameter groups.
        schedule: factor of the learning rate at each optimizer step.
        class_names: classes for zero-shot classification; None: there are none.
        prompts: sentences about a class.
        ks: places at which recall is read.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    def __init__(
        self,
        *,
        network: ClipNetwork,
        loss: ContrastiveLoss,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        class_names: tuple[str, ...] | None = None,
        prompts: Prompts | None = None,
        ks: tuple[int, ...] = (1, 5, 10),
    ) -> None:
        super().__init__()
        _check(network, loss, class_names, prompts)
        self.network = network
        self.loss = loss
        self.class_names = None if class_names is None else tuple(class_names)
        self._prompts = Prompts() if prompts is None else prompts
        self._optimizer, self._schedule = optimizer, schedule
        # Sum of the losses of the epoch so far, and batches; a buffer, so that a resumed epoch goes on.
        self.running: Tensor
        self.register_buffer("running", torch.zeros(2, dtype=torch.float64))
        self.validation = ImageTextRetrieval(features=network.features, ks=ks)
        self.retrieval = ImageTextRetrieval(features=network.features, ks=ks)
        self.zero_shot: ClassificationReport | None = None
        if self.class_names is not None:
            classes = len(self.class_names)
            self.zero_shot = ClassificationReport(mode="multiclass", num_classes=classes, top_k=min(5, classes))
        self._classes: Tensor | None = None
        self._compared = False

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Of the network's texts; None where it is another library's."""
        return self.network.tokenizer

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build optimizer and schedule over the horizon that the trainer derives."""
        return optimizer_and_schedule(
            self.network,
            optimizer=self._optimizer,
            schedule=self._schedule,
            total_steps=self.trainer.estimated_stepping_batches,
        )

    def on_fit_start(self) -> None:
        """Say so where no word is known."""
        self._compared = False
        if isinstance(self.tokenizer, WordTokenizer) and not self.tokenizer.words:
            logger.warning("the tokenizer knows no word and spells all of them: add the callback LearnVocabulary")
        for module in self.modules():
            module.training = True  # Lightning warns of modules in evaluation next; what is frozen is so on purpose

    def on_train_start(self) -> None:
        """Put what is frozen back into evaluation."""
        self.train()

    def forward(self, image: Tensor) -> Tensor:
        """Return unit vectors float32 ``(B, E)`` of images ``(B, C, H, W)``."""
        return self.network.encode_image(image)

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch; figures are accumulated and logged when the trainer logs."""
        stored = batch.get("text_pooled")
        if stored is not None and not self._compared:
            self._compare(batch, stored)
        tokens = self.network.tokenize(_single(batch)).to(self.device) if stored is None else None
        found = self.network(batch["image"], tokens, stored)
        loss = self.loss(found.image, found.text, scale=found.scale, bias=found.bias)
        self.running.add_(torch.stack((loss.detach().double(), loss.new_ones((), dtype=torch.float64))))
        log_step(self, loss, batch_size=len(batch["id"]), further={"train/scale": found.scale})
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss, then start anew."""
        total = over_ranks(self, self.running)
        self.log("train/loss", (total[0] / total[1].clamp(min=1)).float())
        self.running.zero_()

    def on_validation_epoch_start(self) -> None:
        """The classes are encoded anew with the weights of now."""
        self._classes = None
        if self.zero_shot is not None:
            self.zero_shot.reset()

    def validation_step(self, batch: ImageTextBatch | ClassificationBatch, batch_idx: int) -> ClipPrediction:
        """Take in one batch of validation images."""
        return self._evaluate(batch, self.validation)

    def on_validation_epoch_end(self) -> None:
        """Log the validation figures."""
        self._log("val", self.validation)
        self.validation.reset()

    def on_test_epoch_start(self) -> None:
        """Forget the images of an earlier test."""
        self._classes = None
        self.retrieval.reset()
        if self.zero_shot is not None:
            self.zero_shot.reset()

    def test_step(self, batch: ImageTextBatch | ClassificationBatch, batch_idx: int) -> ClipPrediction:
        """Take in one batch of test images."""
        return self._evaluate(batch, self.retrieval)

    def on_test_epoch_end(self) -> None:
        """Log the test figures; images and texts stay readable until the next test starts."""
        self._log("test", self.retrieval)

    def on_predict_epoch_start(self) -> None:
        """The classes are encoded anew."""
        self._classes = None

    def predict_step(self, batch: ImageTextBatch | ClassificationBatch, batch_idx: int) -> ClipPrediction:
        """Predict one batch; labels are not read."""
        return self._predict(batch)

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Unit vectors float32 ``(M, E)`` of texts, a few at a time, without gradients."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            parts = [texts[first : first + _TEXTS_AT_ONCE] for first in range(0, len(texts), _TEXTS_AT_ONCE)]
            return torch.cat([self.network.encode_text(self.network.tokenize(part).to(self.device)) for part in parts])

    def class_logits(self, image_features: Tensor) -> Tensor:
        """Logits float32 ``(B, K)`` of the named classes for unit vectors ``(B, E)`` of images.

        Raises:
            ValueError: if no classes were named.
        """
        if self.class_names is None:
            raise ValueError("class_names=None: name the classes (model.class_names) to classify without training")
        if self._classes is None:
            self._classes = class_features(self.network, self.class_names, prompts=self._prompts)
        return self.network.scale() * image_features @ self._classes.T

    def _evaluate(self, batch: ImageTextBatch | ClassificationBatch, retrieval: ImageTextRetrieval) -> ClipPrediction:
        prediction = self._predict(batch)
        if prediction["captions"]:
            features, texts = prediction["image_features"], prediction["text_features"]
            retrieval.update(features, texts, prediction["text_image"], ids=batch["id"])
        if "label" in batch:
            probabilities = prediction["probabilities"]
            if self.zero_shot is None or probabilities is None:
                raise ValueError("the images have labels, but class_names=None: name the classes (model.class_names)")
            self.zero_shot.update(probabilities, batch["label"], ids=batch["id"])
        elif not prediction["captions"]:
            raise ValueError(f"{batch['id'][0]!r} has neither a caption nor a label: nothing to evaluate")
        return prediction

    def _predict(self, batch: ImageTextBatch | ClassificationBatch) -> ClipPrediction:
        image = batch["image"]
        with torch.autocast(image.device.type, enabled=False):
            features = self.network.encode_image(image.float())
            captions, owner = _captions(batch)
            texts = self._texts(batch, captions, features)
            probabilities = None if self.class_names is None else self.class_logits(features).softmax(1)
        return {
            "image_features": features,
            "text_features": texts,
            "text_image": torch.tensor(owner, dtype=torch.int64, device=features.device),
            "captions": captions,
            "probabilities": probabilities,
            "id": batch["id"],
        }

    def _compare(self, batch: ImageTextBatch, stored: Tensor) -> None:
        """Refuse stored features of another text tower, once for each fit.

        Raises:
            ValueError: if this network says something else of the same texts.
        """
        network = self.network
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            own = network.encode_text(network.tokenize(_single(batch)).to(self.device))
        cosine = (
            torch.nn.functional.cosine_similarity(own, stored.float(), dim=1) if own.shape == stored.shape else None
        )
        if cosine is None or float(cosine.min()) < _SAME_TOWER:
            told = f"{tuple(stored.shape)}" if cosine is None else f"cosine {float(cosine.min()):.3f}"
            raise ValueError(
                f"the stored features of {batch['id'][0]!r} and others are not those of this network's text tower "
                f"({tuple(own.shape)} here, {told} there): build the cache with the weights that are trained on"
            )
        self._compared = True

    def _texts(self, batch: ImageTextBatch | ClassificationBatch, captions: list[str], like: Tensor) -> Tensor:
        if not captions:
            return like.new_empty(0, self.network.features)
        if "text_pooled" in batch:
            _single(batch)  # a stored feature is of one text
            return torch.nn.functional.normalize(batch["text_pooled"].float(), dim=1)
        return self.network.encode_text(self.network.tokenize(captions).to(self.device))

    def _log(self, stage: str, retrieval: ImageTextRetrieval) -> None:
        figures: dict[str, Tensor] = {}
        if self._any_process(retrieval.update_called):
            figures |= retrieval.compute()
        if self.zero_shot is not None and self._any_process(self.zero_shot.update_called):
            figures |= {f"zero_shot_{name}": value for name, value in self.zero_shot.compute().items()}
        self.log_dict({f"{stage}/{name}": value.float() for name, value in figures.items()})

    def _any_process(self, decision: bool) -> bool:
        """Whether it is so on any process: a metric is computed by all of them together."""
        return bool(self.trainer.strategy.reduce_boolean_decision(decision, all=False))


def _captions(batch: ImageTextBatch | ClassificationBatch) -> tuple[list[str], list[int]]:
    """Every caption of a batch, and the image that it is about."""
    if "caption" not in batch:
        return [], []
    pairs = [(line, place) for place, text in enumerate(batch["caption"]) for line in text.split("\n") if line]
    return [line for line, _ in pairs], [place for _, place in pairs]


def _single(batch: ImageTextBatch) -> list[str]:
    """The one caption of each image.

    Raises:
        ValueError: if there are several: one of them must be chosen before.
    """
    for name, text in zip(batch["id"], batch["caption"], strict=True):
        if "\n" in text:
            raise ValueError(
                f"{name!r} has {text.count(chr(10)) + 1} captions, one was expected: draw one in training "
                "(train_transform=ImageOneCaption), or decode one (choice='random' or 'first')"
            )
    return batch["caption"]


def _check(
    network: ClipNetwork, loss: ContrastiveLoss, class_names: tuple[str, ...] | None, prompts: Prompts | None
) -> None:
    if loss.needs_bias and network.bias is None:
        raise ValueError(
            f"network.bias=None: {type(loss).__name__} needs one; -10, with temperature=0.1, is the paper's"
        )
    if network.bias is not None and not loss.needs_bias:
        network.bias.requires_grad_(False)
        logger.warning("the network's bias has no effect on %s: it is not trained", type(loss).__name__)
    if prompts is not None and class_names is None:
        raise ValueError("prompts have no effect without class_names")
    if class_names is not None and (not class_names or len(set(class_names)) != len(class_names)):
        raise ValueError(f"class_names={class_names}: need at least one, each once")
