"""Running text metrics; the maths are in :mod:`neurotrain.metrics.functional`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

import torch
from torch import Tensor

from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.functional.text_bleu import (
    BleuSmoothing,
    bleu_from_statistics,
    bleu_statistics,
    check_bleu_settings,
)
from neurotrain.metrics.functional.text_cider import check_cider_settings, cider_d_score
from neurotrain.metrics.functional.text_ngrams import check_texts
from neurotrain.metrics.functional.text_rouge import RougeDefinition, rouge_l_score
from neurotrain.metrics.functional.text_tokenizers import TextTokenizer
from neurotrain.metrics.records import Plotted, SampleRecords, bits_float, float_bits

Texts = Sequence[Sequence[str]] | Sequence[str]


class BLEUScore(Plotted):
    """BLEU of a corpus from sums of counts; see :func:`neurotrain.metrics.functional.bleu_score`.

    Example:
        >>> metric = BLEUScore()
        >>> metric.update(["the cat sat on the mat"], [["the cat sat on a mat"]])
        >>> round(metric.compute().item(), 4)
        0.5373
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    statistics: Tensor

    def __init__(
        self,
        *,
        max_order: int = 4,
        tokenizer: TextTokenizer = "13a",
        lowercase: bool = False,
        smoothing: BleuSmoothing = "exp",
        smoothing_value: float | None = None,
        effective_order: bool = False,
    ) -> None:
        """Set the definition; arguments as of :func:`neurotrain.metrics.functional.bleu_score`.

        Raises:
            ValueError: if a choice is unknown, or a value has no meaning or no effect.
        """
        super().__init__()
        check_bleu_settings(max_order, smoothing, smoothing_value)
        check_choice("tokenizer", tokenizer, get_args(TextTokenizer))
        self.max_order = max_order
        self.tokenizer: TextTokenizer = tokenizer
        self.lowercase = lowercase
        self.smoothing: BleuSmoothing = smoothing
        self.smoothing_value = smoothing_value
        self.effective_order = effective_order
        self.add_state("statistics", torch.zeros(2 + 2 * max_order, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Sequence[str], target: Texts) -> None:
        """Add texts.

        Args:
            preds: texts.
            target: for each text its references, or its only one.

        Raises:
            ValueError: if the lengths differ, or a text has no reference.
        """
        counts = bleu_statistics(
            preds,
            target,
            max_order=self.max_order,
            tokenizer=self.tokenizer,
            lowercase=self.lowercase,
            smoothing=self.smoothing,
        )
        self.statistics = self.statistics + counts.sum(dim=0).to(self.statistics.device)

    def compute(self) -> Tensor:
        """BLEU of all texts of all ranks, float64 in [0, 1]; NaN for no text."""
        return bleu_from_statistics(
            self.statistics,
            smoothing=self.smoothing,
            smoothing_value=self.smoothing_value,
            effective_order=self.effective_order,
        )


class ROUGELScore(SampleRecords):
    """Mean ROUGE-L over a data set; see :func:`neurotrain.metrics.functional.rouge_l_score`.

    Example:
        >>> metric = ROUGELScore()
        >>> metric.update(["police kill the gunman"], ["police killed the gunman"])
        >>> metric.compute().item()
        0.75
    """

    is_differentiable = False
    higher_is_better = True

    def __init__(
        self,
        *,
        definition: RougeDefinition = "google",
        tokenizer: TextTokenizer = "rouge",
        lowercase: bool = False,
    ) -> None:
        """Set the definition; arguments as of :func:`neurotrain.metrics.functional.rouge_l_score`.

        Raises:
            ValueError: if a choice is unknown.
        """
        super().__init__()
        check_choice("definition", definition, get_args(RougeDefinition))
        check_choice("tokenizer", tokenizer, get_args(TextTokenizer))
        self.definition: RougeDefinition = definition
        self.tokenizer: TextTokenizer = tokenizer
        self.lowercase = lowercase
        self._add_rows("scores", shape=(), dtype=torch.int64)

    def update(self, preds: Sequence[str], target: Texts) -> None:
        """Add texts.

        Args:
            preds: texts.
            target: for each text its references, or its only one.

        Raises:
            ValueError: if the lengths differ, or a text has no reference.
        """
        scores = rouge_l_score(
            preds, target, definition=self.definition, tokenizer=self.tokenizer, lowercase=self.lowercase
        )
        self._append("scores", float_bits(scores))

    def compute(self) -> Tensor:
        """Mean over all texts of all ranks, float64 in [0, 1]; NaN for no text."""
        return bits_float(self._rows("scores")).mean()


class CIDErScore(SampleRecords):
    """Mean CIDEr-D over a data set; see :func:`neurotrain.metrics.functional.cider_d_score`.

    It keeps all texts, since how rare an n-gram is depends on the whole data set. Each image must be given once.

    Example:
        >>> metric = CIDErScore()
        >>> metric.update(["a red bus drives"], ["a red bus drives"])
        >>> metric.update(["two dogs play here"], [["cats sleep", "a cat sleeps"]])
        >>> round(metric.compute().item(), 6)
        5.0
    """

    is_differentiable = False
    higher_is_better = True

    def __init__(
        self,
        *,
        max_order: int = 4,
        sigma: float = 6.0,
        tokenizer: TextTokenizer = "13a",
        lowercase: bool = True,
    ) -> None:
        """Set the definition; arguments as of :func:`neurotrain.metrics.functional.cider_d_score`.

        Raises:
            ValueError: if a choice is unknown, or a number has no meaning.
        """
        super().__init__()
        check_cider_settings(max_order, sigma)
        check_choice("tokenizer", tokenizer, get_args(TextTokenizer))
        self.max_order = max_order
        self.sigma = sigma
        self.tokenizer: TextTokenizer = tokenizer
        self.lowercase = lowercase
        self._add_rows("codes", shape=(), dtype=torch.uint8)
        self._add_rows("lengths", shape=(), dtype=torch.int64)
        self._add_rows("numbers", shape=(), dtype=torch.int64)

    def update(self, preds: Sequence[str], target: Texts) -> None:
        """Add captions.

        Args:
            preds: captions.
            target: for each caption its references, or its only one.

        Raises:
            ValueError: if the lengths differ, or a caption has no reference.
        """
        references = check_texts(preds, target)
        texts = [text.encode() for own, entry in zip(preds, references, strict=True) for text in (own, *entry)]
        joined = bytearray(b"".join(texts))
        codes = torch.frombuffer(joined, dtype=torch.uint8) if joined else torch.zeros(0, dtype=torch.uint8)
        self._append("codes", codes.clone())
        self._append("lengths", torch.tensor([len(text) for text in texts], dtype=torch.int64))
        self._append("numbers", torch.tensor([1 + len(entry) for entry in references], dtype=torch.int64))

    def compute(self) -> Tensor:
        """Mean over all captions of all ranks, float64 in [0, 10]; NaN for no caption."""
        codes = bytes(self._rows("codes").cpu().numpy())
        ends = self._rows("lengths").cumsum(dim=0).tolist()
        texts = [codes[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
        preds: list[str] = []
        references: list[list[str]] = []
        first = 0
        for number in cast("list[int]", self._rows("numbers").tolist()):
            preds.append(texts[first])
            references.append(texts[first + 1 : first + number])
            first += number
        scores = cider_d_score(
            preds,
            references,
            max_order=self.max_order,
            sigma=self.sigma,
            tokenizer=self.tokenizer,
            lowercase=self.lowercase,
        )
        return scores.mean().to(self.device)
