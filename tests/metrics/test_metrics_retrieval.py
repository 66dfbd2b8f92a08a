"""Image-text retrieval: by hand, against a plain sort, ties, several captions, and what is refused."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from neurotrain.metrics import ImageTextRetrieval
from neurotrain.metrics.functional import image_text_retrieval, retrieval_ranks


def features(images: int = 30, texts: int = 75) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy captions, unevenly spread over images; some images have none."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(images, 8, generator=generator)
    owner = torch.randint(0, images, (texts,), generator=generator)
    return image, image[owner] + 1.5 * torch.randn(texts, 8, generator=generator), owner


def test_worked_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.6, 0.8], [1.0, 0.1], [0.0, 2.0]])
    owner = torch.tensor([0, 0, 1])
    found = image_text_retrieval(images, texts, text_image=owner, ks=(1, 2))
    # images find texts 1 and 2 first; text 0 finds image 1 first, its own second
    assert found["image_to_text_recall_1"].item() == 1
    assert found["text_to_image_recall_1"].item() == pytest.approx(2 / 3)
    assert found["text_to_image_recall_2"].item() == 1
    assert found["text_to_image_median_rank"].item() == 1
    assert found["text_to_image_mean_rank"].item() == pytest.approx(4 / 3)
    assert found["clip_accuracy"].item() == pytest.approx(5 / 6)
    assert found["similarity"].item() == pytest.approx((0.6 + 1 / 1.01**0.5 + 1) / 3, abs=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
@pytest.mark.parametrize("normalize", [True, False])
def test_ranks_equal_a_sort(chunk_size: int, normalize: bool) -> None:
    images, texts, owner = features()
    of_images, of_texts = retrieval_ranks(images, texts, text_image=owner, normalize=normalize, chunk_size=chunk_size)
    a, b = (
        (images, texts) if not normalize else (images / images.norm(dim=1)[:, None], texts / texts.norm(dim=1)[:, None])
    )
    similarity = (a.double() @ b.double().T).numpy()
    for place, rank in enumerate(of_images.tolist()):
        order = owner.numpy()[np.argsort(-similarity[place], kind="stable")]
        hits = np.flatnonzero(order == place)
        assert rank == (hits[0] + 1 if len(hits) else 0)
    for place, rank in enumerate(of_texts.tolist()):
        order = np.argsort(-similarity[:, place], kind="stable")
        assert rank == np.flatnonzero(order == owner[place].item())[0] + 1


def test_pairs_equal_the_way_of_open_clip() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.nn.functional.normalize(torch.randn(40, 6, generator=generator), dim=1)
    texts = torch.nn.functional.normalize(images + 0.4 * torch.randn(40, 6, generator=generator), dim=1)
    found = image_text_retrieval(images, texts)
    for name, logits in (("image_to_text", images @ texts.T), ("text_to_image", texts @ images.T)):
        ranking = logits.argsort(descending=True)
        places = torch.where(ranking == torch.arange(40)[:, None])[1].numpy()
        assert found[f"{name}_mean_rank"].item() == pytest.approx(places.mean() + 1)
        for k in (1, 5, 10):
            assert found[f"{name}_recall_{k}"].item() == pytest.approx((places < k).mean())


def test_a_collapsed_model_is_no_better_than_chance() -> None:
    found = image_text_retrieval(torch.ones(10, 4), torch.ones(10, 4), ks=(1,))
    assert found["clip_accuracy"].item() == pytest.approx(0.1)


def test_images_without_text_are_answers_only() -> None:
    images, texts = torch.eye(3), torch.eye(3)[:1]
    found = image_text_retrieval(images, texts, text_image=torch.tensor([0]), ks=(1,))
    assert found["image_to_text_recall_1"].item() == 1
    nothing = image_text_retrieval(images, texts[:0], text_image=torch.zeros(0).long())
    assert all(value.isnan() for value in nothing.values())


def test_half_precision_is_computed_in_single() -> None:
    images, texts, owner = features()
    half = image_text_retrieval(images.bfloat16(), texts.half(), text_image=owner)
    single = image_text_retrieval(images.bfloat16().float(), texts.half().float(), text_image=owner)
    assert all(torch.equal(half[name], single[name]) for name in single)


def test_the_class_accumulates() -> None:
    images, texts, owner = features()
    order = owner.argsort(stable=True)
    texts, owner = texts[order], owner[order]
    expected = image_text_retrieval(images, texts, text_image=owner)
    metric = ImageTextRetrieval(features=8)
    first = owner < 11
    metric.update(images[:11], texts[first], owner[first])
    clone = pickle.loads(pickle.dumps(copy.deepcopy(metric.clone())))
    for each in (metric, clone):
        torch.nn.ModuleList([each]).to(torch.bfloat16)
        each.update(images[11:], texts[~first], owner[~first] - 11)
        torch.testing.assert_close(each.compute(), expected, rtol=0, atol=1e-12)
    metric.reset()
    metric.update(images, texts, owner)
    torch.testing.assert_close(metric.compute(), expected, rtol=0, atol=0)


REFUSED = [
    (lambda: image_text_retrieval(torch.rand(2, 3), torch.rand(2, 4)), "must be"),
    (lambda: image_text_retrieval(torch.rand(2, 3), torch.rand(4, 3)), "text_image must say"),
    (lambda: image_text_retrieval(torch.rand(2, 3), torch.rand(1, 3), text_image=torch.tensor([2])), "indices of 2"),
    (lambda: image_text_retrieval(torch.rand(1, 3), torch.rand(1, 3), ks=(0,)), "at least 1"),
    (lambda: image_text_retrieval(torch.full((1, 3), torch.inf), torch.rand(1, 3)), "finite"),
    (lambda: ImageTextRetrieval(ks=()), "at least 1"),
    (lambda: ImageTextRetrieval(features=4).update(torch.rand(1, 3), torch.rand(1, 3)), "features=4"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_wrong_input_is_named(call, message: str) -> None:  # noqa: ANN001 - a function
    with pytest.raises(ValueError, match=message):
        call()
