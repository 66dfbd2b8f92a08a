"""Words of a tokenizer, learned from the texts that are trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from lightning.pytorch import Callback, LightningModule, Trainer

from neurotrain.data import PlannedDataModule, SourcePart
from neurotrain.networks.text import HasTokenizer, WordTokenizer

logger = logging.getLogger(__name__)


class LearnVocabulary(Callback):
    """Lets the task's tokenizer choose its words from the captions of the training data, before the first step.

    Held-out captions are not read. A vocabulary that is given, or came with weights, stays as it is; a resumed run has
    that of its checkpoint.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the captions, when a fit begins.

        Raises:
            ValueError: if the task has no tokenizer, or the data have no captions.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, HasTokenizer):
            raise ValueError(f"LearnVocabulary: {type(pl_module).__name__} has no tokenizer; leave the callback out")
        tokenizer = pl_module.tokenizer
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if tokenizer is None or not isinstance(data, PlannedDataModule):
            return
        if tokenizer.learn(training_captions(data)) and isinstance(tokenizer, WordTokenizer):
            logger.info("vocabulary: %s words of %s", f"{len(tokenizer.words):,}", data.title)


def training_captions(data: PlannedDataModule) -> Iterator[str]:
    """Every caption of the training samples, one by one; out of the indexes where those have them.

    Args:
        data: set up for training.

    Raises:
        ValueError: names a source, or a sample, without captions.
    """
    for part in data.training().parts:
        table = part.table()
        if "caption" in table.column_names and table.column("caption").null_count == 0:
            texts = iter(table.column("caption").to_pylist())
        elif isinstance(part, SourcePart):
            texts = _read(part)
        else:
            raise ValueError(f"LearnVocabulary: {part.name} has no captions")
        for text in texts:
            yield from str(text).split("\n")


def _read(part: SourcePart) -> Iterator[str]:
    wanted = set(part.table().column("id").to_pylist())
    for index, name in enumerate(part.source.table().column("id").to_pylist()):
        if name in wanted:
            sample = part.source.read(index)
            text = sample.fields.get("caption")
            if not isinstance(text, str):
                raise ValueError(f"LearnVocabulary: {sample.uri} has no caption")
            yield text
