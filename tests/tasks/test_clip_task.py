"""The task of images and texts: it learns pairs, scores all captions, classifies by names, refuses what contradicts."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from neurotrain.batch import ClassificationBatch, ImageTextBatch
from neurotrain.losses.contrastive import ClipLoss, SigLipLoss
from neurotrain.metrics.functional import image_text_retrieval
from neurotrain.networks.classification import ResNetSmall
from neurotrain.networks.clip import ClipTextEncoder, DualEncoder, Frozen, LowRank, Prompts
from neurotrain.networks.text import HasTokenizer, TextTransformer, WordTokenizer
from neurotrain.tasks import ClipTask, Constant

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
NAMES = ("red", "green", "blue", "grey")


def _network(**options: Any) -> DualEncoder:  # noqa: ANN401 - of the constructor
    torch.manual_seed(0)
    tokenizer = WordTokenizer(size=300)
    tokenizer.learn([f"a {name} wall" for name in NAMES])
    text = TextTransformer(tokenizer=tokenizer, width=16, layers=1, heads=2, length=12)
    return DualEncoder(image=ResNetSmall(widths=(8,), blocks=(1,), num_classes=8), text=text, **options)


def _task(**changes: Any) -> ClipTask:  # noqa: ANN401 - of the constructor
    given: dict[str, Any] = {
        "network": _network(),
        "loss": ClipLoss(),
        "optimizer": partial(torch.optim.AdamW, lr=0.02),
        "schedule": Constant(),
    }
    return ClipTask(**given | changes)


def _images(seed: int) -> torch.Tensor:
    image = 0.1 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    for place in range(3):
        image[place, place] += 1
    return image


def _batch(seed: int, *, captions: tuple[str, ...] = ("a {} wall",)) -> ImageTextBatch:
    texts = ["\n".join(caption.format(name) for caption in captions) for name in NAMES]
    return {
        "image": _images(seed),
        "caption": texts,
        "id": [f"{seed}-{row}" for row in range(4)],
        "source": ["toy"] * 4,
    }


def _labelled(seed: int) -> ClassificationBatch:
    return {
        "image": _images(seed),
        "label": torch.arange(4),
        "id": [f"{seed}-{row}" for row in range(4)],
        "source": ["toy"] * 4,
    }


def _loader(batches: list[Any]) -> Any:  # noqa: ANN401 - of torch
    return DataLoader(batches, batch_size=None)  # pyright: ignore


def _trainer(**changes: Any) -> Trainer:  # noqa: ANN401 - of Lightning
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    given = {"accelerator": "cpu", "max_epochs": 1, "enable_model_summary": False, "log_every_n_steps": 1}
    return Trainer(**given | quiet | changes)


@pytest.mark.parametrize(
    ("loss", "network"),
    [(ClipLoss(chunk_size=3), {}), (SigLipLoss(), {"bias": -3.0, "temperature": 0.1})],
    ids=["clip", "siglip"],
)
def test_it_learns_pairs_and_then_classifies_by_names(loss: Any, network: dict[str, float]) -> None:  # noqa: ANN401
    task = _task(loss=loss, network=_network(**network), class_names=NAMES, prompts=Prompts(templates=("a {} wall",)))
    assert isinstance(task, HasTokenizer)
    trainer = _trainer(max_epochs=20, log_every_n_steps=60, check_val_every_n_epoch=20)
    trainer.fit(task, _loader([_batch(seed) for seed in range(3)]), _loader([_batch(9)]))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["val/image_to_text_recall_1"] == logged["val/text_to_image_recall_1"] == 1.0
    assert logged["val/image_to_text_median_rank"] == 1.0
    assert logged["train/loss"] < 1.0
    assert "train/scale" in logged
    (tested,) = trainer.test(task, _loader([_labelled(11), _labelled(12)]), verbose=False)
    assert tested == {name: value for name, value in tested.items() if name.startswith("test/zero_shot_")}
    assert tested["test/zero_shot_accuracy"] == 1.0
    predicted = trainer.predict(task, _loader([_labelled(11), _batch(11)]))
    assert predicted is not None
    first, second = predicted
    assert first["captions"] == []  # pyright: ignore
    assert first["probabilities"].argmax(1).tolist() == [0, 1, 2, 3]  # pyright: ignore
    torch.testing.assert_close(first["image_features"], second["image_features"])  # pyright: ignore


def test_every_caption_of_an_image_counts_in_evaluation() -> None:
    task = _task()
    batches = [_batch(seed, captions=("a {} wall", "{}")) for seed in range(2)]
    (tested,) = _trainer().test(task, _loader(batches), verbose=False)
    task.eval()
    with torch.no_grad():
        images = torch.cat([task(batch["image"]) for batch in batches])
        captions = [line for batch in batches for text in batch["caption"] for line in text.split("\n")]
        texts = task.network.encode_text(task.network.tokenize(captions))
    owner = torch.arange(8).repeat_interleave(2)
    wanted = image_text_retrieval(images, texts, text_image=owner)
    assert tested == pytest.approx({f"test/{name}": float(value) for name, value in wanted.items()}, abs=1e-6)


def test_training_takes_one_caption_and_says_how() -> None:
    with pytest.raises(ValueError, match=r"'0-0' has 2 captions.*ImageOneCaption"):
        _trainer().fit(_task(), _loader([_batch(0, captions=("a {} wall", "{}"))]))


def test_stored_features_of_a_frozen_tower_give_the_same_steps() -> None:
    weights = []
    for stored in (False, True):
        network = _network(text_tuning=Frozen())
        encoder = ClipTextEncoder(network=_network())
        batches = [_batch(seed) for seed in range(2)]
        if stored:
            for batch in batches:
                batch["text_pooled"] = encoder.encode(batch["caption"])["pooled"]
        task = _task(network=network)
        trainer = _trainer()
        trainer.fit(task, _loader(batches), _loader(batches[:1]))
        assert "val/clip_accuracy" in trainer.callback_metrics
        weights.append(dict(task.network.image.named_parameters()))
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0.0, atol=1e-5, msg=name)


def test_stored_features_of_another_tower_are_refused() -> None:
    network = _network()
    torch.nn.init.normal_(network.text.projection.weight)
    batch = _batch(0)
    batch["text_pooled"] = ClipTextEncoder(network=network).encode(batch["caption"])["pooled"]
    with pytest.raises(ValueError, match="'0-0' and others are not those of this network's text tower"):
        _trainer().fit(_task(network=_network(text_tuning=Frozen())), _loader([batch]))


def test_only_what_learns_is_given_to_the_optimizer() -> None:
    task = _task(network=_network(image_tuning=Frozen(), text_tuning=LowRank(rank=1)))
    trainer = _trainer()
    trainer.fit(task, _loader([_batch(0)]))
    assert not any(module.training for module in task.network.image.modules())  # pyright: ignore
    given = {id(value) for group in trainer.optimizers[0].param_groups for value in group["params"]}
    names = {name for name, value in task.network.named_parameters() if id(value) in given}
    assert "log_scale" in names
    assert all(name == "log_scale" or name.endswith((".up", ".down")) for name in names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": SigLipLoss()}, "network.bias=None: SigLipLoss needs one"),
        ({"prompts": Prompts()}, "no effect without class_names"),
        ({"class_names": ("a", "a")}, "each once"),
        ({"class_names": ()}, "at least one"),
        ({"ks": (0,)}, "at least 1"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _task(**changes)


def test_a_bias_that_the_loss_does_not_have_is_not_trained(caplog: pytest.LogCaptureFixture) -> None:
    task = _task(network=_network(bias=-3.0))
    assert task.network.bias is not None
    assert not task.network.bias.requires_grad
    assert "no effect on ClipLoss" in caplog.text


def test_labels_need_names_and_images_something_to_score() -> None:
    with pytest.raises(ValueError, match="class_names=None"):
        _trainer().test(_task(), _loader([_labelled(0)]), verbose=False)
    nothing = {"image": _images(0), "id": ["a", "b", "c", "d"], "source": ["toy"] * 4}
    with pytest.raises(ValueError, match="'a' has neither a caption nor a label"):
        _trainer().test(_task(), _loader([nothing]), verbose=False)
    with pytest.raises(ValueError, match="class_names=None"):
        _task().class_logits(torch.zeros(1, 8))


def test_words_that_are_not_known_are_told(caplog: pytest.LogCaptureFixture) -> None:
    text = TextTransformer(tokenizer=WordTokenizer(size=300), width=8, layers=1, heads=2, length=12)
    network = DualEncoder(image=ResNetSmall(widths=(4,), blocks=(1,), num_classes=8), text=text)
    _trainer().fit(_task(network=network), _loader([_batch(0)]))
    assert "knows no word" in caplog.text
