"""Contrastive losses: worked by hand, against open_clip's, in chunks as in one piece, gradients by differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from neurotrain.losses.contrastive import ClipLoss, SigLipLoss, clip_loss, contrastive_cross_entropy, siglip_loss

Loss = Callable[..., Tensor]


def pairs(count: int = 7, features: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(2, count, features, generator=draw, dtype=torch.float64).to(dtype)
    image, text = functional.normalize(rows, dim=-1)
    return image, text


def leaves(count: int = 7, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Image, text, scale, bias."""
    values = [*pairs(count, dtype=dtype), torch.tensor(8.0, dtype=dtype), torch.tensor(-3.0, dtype=dtype)]
    return [value.clone().requires_grad_() for value in values]


def of_clip(given: list[Tensor], **options: int | None) -> Tensor:
    return clip_loss(given[0], given[1], scale=given[2], **options)  # pyright: ignore


def of_siglip(given: list[Tensor], **options: int | None) -> Tensor:
    return siglip_loss(given[0], given[1], scale=given[2], bias=given[3], **options)  # pyright: ignore


both = pytest.mark.parametrize(("loss", "count"), [(of_clip, 3), (of_siglip, 4)], ids=["clip", "siglip"])


def test_clips_loss_worked_by_hand() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # Similarities times 2: rows of images (2, 1.2) and (0, 1.6), so of texts (2, 0) and (1.2, 1.6).
    of_images = [math.log(1 + math.exp(1.2 - 2.0)), math.log(1 + math.exp(0.0 - 1.6))]
    of_texts = [math.log(1 + math.exp(0.0 - 2.0)), math.log(1 + math.exp(1.2 - 1.6))]
    wanted = (sum(of_images) + sum(of_texts)) / 4
    for chunk_size in (None, 1, 2):
        found = clip_loss(image, text, scale=torch.tensor(2.0), chunk_size=chunk_size)
        assert found.item() == pytest.approx(wanted, abs=1e-6)


def test_siglips_loss_worked_by_hand() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    logits = {(0, 0): 2.0, (0, 1): 1.2, (1, 0): 0.0, (1, 1): 1.6}
    terms = [math.log(1 + math.exp(-(value - 1.0) if i == j else value - 1.0)) for (i, j), value in logits.items()]
    for chunk_size in (None, 1, 2):
        found = siglip_loss(image, text, scale=torch.tensor(2.0), bias=torch.tensor(-1.0), chunk_size=chunk_size)
        assert found.item() == pytest.approx(sum(terms) / 2, abs=1e-6)


@both
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_values_and_gradients_are_open_clips(loss: Loss, count: int, chunk_size: int | None) -> None:
    from open_clip.loss import ClipLoss as TheirClip
    from open_clip.loss import SigLipLoss as TheirSigLip

    ours, theirs = leaves(), leaves()
    found = loss(ours, chunk_size=chunk_size)
    wanted = TheirClip()(*theirs[:3]) if count == 3 else TheirSigLip()(*theirs)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    found.backward()
    wanted.backward()
    for one, other in zip(ours[:count], theirs[:count], strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)


@both
@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_chunks_give_the_plain_loss_and_every_gradient(loss: Loss, count: int, chunk_size: int) -> None:
    plain, chunked = leaves(), leaves()
    one, other = loss(plain), loss(chunked, chunk_size=chunk_size)
    torch.testing.assert_close(one, other, rtol=0.0, atol=1e-6)
    one.backward(torch.tensor(0.5))
    other.backward(torch.tensor(0.5))
    for mine, theirs in zip(plain[:count], chunked[:count], strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0.0, atol=1e-6)


@both
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_gradients_by_differences(loss: Loss, count: int, chunk_size: int | None) -> None:
    given = leaves(4, dtype=torch.float64)
    others = given[count:]
    assert torch.autograd.gradcheck(
        lambda *values: loss([*values, *others], chunk_size=chunk_size), tuple(given[:count])
    )


def test_a_part_of_the_questions_finds_its_answers_among_all() -> None:
    image, text = pairs(6)
    scale = torch.tensor(5.0)
    halves = [
        clip_loss(
            image[rows], text[rows], scale=scale, all_image_ND=image, all_text_ND=text, first=first, chunk_size=chunk
        )
        for rows, first, chunk in ((slice(0, 3), 0, None), (slice(3, 6), 3, 2))
    ]
    torch.testing.assert_close(sum(halves) / 2, clip_loss(image, text, scale=scale))
    bias = torch.tensor(-2.0)
    halves = [
        siglip_loss(image[rows], text[rows], scale=scale, bias=bias, all_text_ND=text, first=first, chunk_size=chunk)
        for rows, first, chunk in ((slice(0, 3), 0, None), (slice(3, 6), 3, 2))
    ]
    torch.testing.assert_close(sum(halves) / 2, siglip_loss(image, text, scale=scale, bias=bias))


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_half_precision_is_computed_in_float32_under_autocast_too(chunk_size: int | None) -> None:
    image, text = pairs(dtype=torch.bfloat16)
    scale = torch.tensor(50.0)
    wanted = clip_loss(image.float(), text.float(), scale=scale)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = clip_loss(image, text, scale=scale, chunk_size=chunk_size)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_large_scales_do_not_overflow(chunk_size: int | None) -> None:
    image, text = (rows.clone().requires_grad_() for rows in pairs())
    scale = torch.tensor(1e4, requires_grad=True)
    clip_loss(image, text, scale=scale, chunk_size=chunk_size).backward()
    siglip_loss(image, text, scale=scale, bias=torch.tensor(0.0), chunk_size=chunk_size).backward()
    for leaf in (image, text, scale):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_modules_are_their_functions_and_a_bias_is_asked_for() -> None:
    image, text = pairs()
    scale, bias = torch.tensor(3.0), torch.tensor(-1.0)
    assert torch.equal(
        ClipLoss(chunk_size=2)(image, text, scale=scale), clip_loss(image, text, scale=scale, chunk_size=2)
    )
    assert torch.equal(
        SigLipLoss()(image, text, scale=scale, bias=bias, everywhere=False),
        siglip_loss(image, text, scale=scale, bias=bias),
    )
    with pytest.raises(ValueError, match="bias=None"):
        SigLipLoss()(image, text, scale=scale)


def test_what_does_not_fit_is_refused() -> None:
    image, text = pairs()
    scale = torch.tensor(1.0)
    with pytest.raises(ValueError, match=r"\(7, 4\) and \(7, 5\)"):
        clip_loss(image[:, :4], text, scale=scale)
    with pytest.raises(ValueError, match="first=1"):
        contrastive_cross_entropy(image, text, scale=scale, first=1)
    with pytest.raises(ValueError, match="chunk_size=0"):
        ClipLoss(chunk_size=0)
    with pytest.raises(ValueError, match=r"scale of shape \(1,\)"):
        clip_loss(image, text, scale=torch.ones(1))
