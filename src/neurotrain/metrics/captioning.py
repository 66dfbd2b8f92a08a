"""Every figure of captions over a data set, each image counted once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.functional.text_bleu import bleu_score, sentence_bleu_score
from neurotrain.metrics.functional.text_cider import cider_d_score
from neurotrain.metrics.functional.text_ngrams import check_texts
from neurotrain.metrics.functional.text_rouge import rouge_l_score
from neurotrain.metrics.functional.text_tokenizers import TextTokenizer
from neurotrain.metrics.records import IdentifiedRecords

_ORDERS = (1, 2, 3, 4)


class Captioned(NamedTuple):
    """One image with what was said of it.

    Attributes:
        id: of the image.
        caption: that was written.
        references: that it is measured by.
    """

    id: str
    caption: str
    references: list[str]


class CaptionReport(IdentifiedRecords):
    """``bleu1`` to ``bleu4``, ``rouge_l`` and ``cider_d`` of captions with any number of references.

    BLEU is that of the corpus, without smoothing; ROUGE-L as coco-caption defines it; CIDEr-D is in [0, 10]. Texts are
    lowered and become runs of letters and digits (``tokenizer="rouge"``), which is near to what coco-caption does
    (Stanford's PTB tokenizer without punctuation) and differs from it in words with a hyphen or an apostrophe.

    Example:
        >>> report = CaptionReport()
        >>> report.update(["A dog.", "two cats sleep"], [["a dog", "one dog"], ["two cats sleep"]], ids=["a", "b"])
        >>> figures = report.compute()
        >>> figures["bleu2"].item(), figures["rouge_l"].item()
        (1.0, 1.0)
    """

    is_differentiable = False

    def __init__(self, *, tokenizer: TextTokenizer = "rouge") -> None:
        """Set how texts become tokens.

        Args:
            tokenizer: of all figures, see :data:`neurotrain.metrics.functional.text_tokenizers.TextTokenizer`; texts
                are lowered first.

        Raises:
            ValueError: if it is unknown.
        """
        super().__init__()
        check_choice("tokenizer", tokenizer, get_args(TextTokenizer))
        self.tokenizer: TextTokenizer = tokenizer
        self._add_rows("codes", shape=(), dtype=torch.uint8)
        self._add_rows("lengths", shape=(), dtype=torch.int64)
        self._add_rows("numbers", shape=(), dtype=torch.int64)
        self._add_rows("digests", shape=(), dtype=torch.int64)

    def update(
        self, preds: Sequence[str], target: Sequence[Sequence[str]] | Sequence[str], *, ids: Sequence[str]
    ) -> None:
        """Add captions.

        Args:
            preds: captions.
            target: for each its references, or its only one.
            ids: of the images; one that is known does not count again.

        Raises:
            ValueError: if the lengths differ, or a caption has no reference.
        """
        references = check_texts(preds, target)
        self._append_ids(ids, count=len(preds))
        texts = [text.encode() for own, entry in zip(preds, references, strict=True) for text in (own, *entry)]
        joined = bytearray(b"".join(texts))
        codes = torch.frombuffer(joined, dtype=torch.uint8) if joined else torch.zeros(0, dtype=torch.uint8)
        self._append("codes", codes.clone())
        self._append("lengths", torch.tensor([len(text) for text in texts], dtype=torch.int64))
        self._append("numbers", torch.tensor([1 + len(entry) for entry in references], dtype=torch.int64))
        self._append("digests", torch.tensor([_digest(entry) for entry in references], dtype=torch.int64))

    def gathered(self) -> list[Captioned]:
        """The distinct images, by id; within a sync those of all ranks."""
        codes = bytes(self._rows("codes").cpu().numpy())
        ends = self._rows("lengths").cumsum(dim=0).tolist()
        texts = [codes[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
        lasts = self._rows("numbers").cumsum(dim=0).tolist()
        entries = [texts[start:end] for start, end in zip([0, *lasts], lasts, strict=False)]
        rows = self._distinct(self._rows("digests"))
        return [Captioned(name, entries[row][0], entries[row][1:]) for name, row in rows.items()]

    def compute(self) -> dict[str, Tensor]:
        """Figures by name, float64; NaN without captions."""
        found = self.gathered()
        preds, references = [item.caption for item in found], [item.references for item in found]
        figures = {
            f"bleu{order}": bleu_score(
                preds, references, max_order=order, tokenizer=self.tokenizer, lowercase=True, smoothing="none"
            )
            for order in _ORDERS
        }
        figures["rouge_l"] = self._rouge(preds, references).mean()
        figures["cider_d"] = self._cider(preds, references).mean()
        return {name: value.to(self.device) for name, value in figures.items()}

    def rows(self) -> list[dict[str, str | float]]:
        """A row an image: ``id``, ``caption``, ``references`` (with `` | `` between), and its own figures.

        ``bleu4`` of a single caption is smoothed (``exp``), or most would be 0: its mean is not that of the corpus.
        """
        found = self.gathered()
        preds, references = [item.caption for item in found], [item.references for item in found]
        bleu = sentence_bleu_score(preds, references, tokenizer=self.tokenizer, lowercase=True, smoothing="exp")
        columns = zip(
            found,
            bleu.tolist(),
            self._rouge(preds, references).tolist(),
            self._cider(preds, references).tolist(),
            strict=True,
        )
        return [
            {
                "id": item.id,
                "caption": item.caption,
                "references": " | ".join(item.references),
                "bleu4": own_bleu,
                "rouge_l": rouge,
                "cider_d": cider,
            }
            for item, own_bleu, rouge, cider in columns
        ]

    def _rouge(self, preds: list[str], references: list[list[str]]) -> Tensor:
        return rouge_l_score(preds, references, definition="coco", tokenizer=self.tokenizer, lowercase=True)

    def _cider(self, preds: list[str], references: list[list[str]]) -> Tensor:
        return cider_d_score(preds, references, tokenizer=self.tokenizer, lowercase=True)


def _digest(references: list[str]) -> int:
    """A number that tells the references of one image from those of another."""
    digest = hashlib.blake2b("\0".join(references).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
