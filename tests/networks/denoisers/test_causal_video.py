"""A video denoiser that looks back only, and the best one of moving shapes in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from neurotrain.networks.denoisers import CausalVideo, Past
from neurotrain.networks.moving_shapes import ExactClips, MovingShapes
from neurotrain.noise import FlowSchedule


def network(**given: Any) -> CausalVideo:  # noqa: ANN401
    torch.manual_seed(0)
    small: dict[str, Any] = {"frames": 6, "size": 4, "patch": 2, "chunk": 2, "width": 16, "depth": 2, "heads": 2}
    return CausalVideo(**small | given)


def noisy(channels: int = 1) -> tuple[Tensor, Tensor]:
    """Three videos, and a time for each of their three chunks."""
    generator = torch.Generator().manual_seed(1)
    times = torch.rand(3, 1, 3, 1, 1, generator=generator).repeat_interleave(2, 2)
    return torch.randn(3, channels, 6, 4, 4, generator=generator), times


def rolled_out(made: CausalVideo, x_t: Tensor, t: Tensor) -> Tensor:
    past: Past | None = None
    found: list[Tensor] = []
    for first in range(0, made.frames, made.chunk):
        part, past = made.extend(x_t[:, :, first : first + made.chunk], t[:, 0, first, 0, 0], past=past)
        found.append(part)
    return torch.cat(found, 2)


@pytest.mark.parametrize("given", [{}, {"chunk": 1}, {"chunk": 3}, {"channels": 2, "patch": 4}], ids=str)
def test_with_the_cache_a_rollout_is_the_masked_forward(given: dict[str, Any]) -> None:
    made = network(**given)
    x_t, t = noisy(given.get("channels", 1))
    t = t[:, :, :: made.chunk].repeat_interleave(made.chunk, 2)[:, :, :6]
    torch.testing.assert_close(rolled_out(made, x_t, t), made(x_t, t), rtol=0, atol=1e-5)


def test_a_chunk_sees_itself_and_what_was_before() -> None:
    made = network()
    x_t, t = noisy()
    before = made(x_t, t)
    x_t[:, :, 2] += 1.0  # the first frame of the second chunk
    after = (made(x_t, t) - before).abs().amax((0, 1, 3, 4))
    assert after[:2].max() == 0
    assert after[2:].min() > 1e-4


def test_a_chunk_of_all_frames_sees_everything() -> None:
    made = network(chunk=6)
    x_t, t = noisy()
    before = made(x_t, t)
    x_t[:, :, 5] += 1.0
    assert (made(x_t, t) - before).abs().amax((0, 1, 3, 4)).min() > 1e-4


def test_times_of_frames_are_told_apart() -> None:
    made = network()
    x_t, t = noisy()
    one = torch.full((3,), 0.4)
    torch.testing.assert_close(made(x_t, one), made(x_t, one.view(3, 1, 1, 1, 1).expand(-1, -1, 6, -1, -1)))
    other = t.clone()
    other[:, :, 4:] = 0.5
    change = (made(x_t, t) - made(x_t, other)).abs().amax((0, 1, 3, 4))
    assert change[:4].max() == 0
    assert change[4:].min() > 1e-5


def test_weights_fit_whatever_the_chunk_and_all_have_gradients() -> None:
    made = network()
    network(chunk=6).load_state_dict(made.state_dict())
    x_t, t = noisy()
    made(x_t, t).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_what_does_not_fit_is_refused() -> None:
    made = network()
    x_t, t = noisy()
    with pytest.raises(ValueError, match=r"samples of shape \(3, 1, 4, 4, 4\): expected \(batch, 1, 6, 4, 4\)"):
        made(x_t[:, :, :4], t)
    with pytest.raises(ValueError, match=r"times of shape \(2,\): expected \(3,\) or \(3, 1, 6, 1, 1\)"):
        made(x_t, torch.zeros(2))
    with pytest.raises(ValueError, match="steered by 'label', only by nothing"):
        made(x_t, t, {"label": torch.zeros(3)})
    _, past = made.extend(x_t[:, :, :2], torch.zeros(3))
    with pytest.raises(ValueError, match=r"expected \(batch, 1, 2, 4, 4\)"):
        made.extend(x_t, torch.zeros(3), past=past)
    for first in (2, 4):
        _, past = made.extend(x_t[:, :, first : first + 2], torch.zeros(3), past=past)
    with pytest.raises(ValueError, match="the video is over: 6 of 6 frames"):
        made.extend(x_t[:, :, :2], torch.zeros(3), past=past)
    with pytest.raises(ValueError, match="chunk=4"):
        network(chunk=4)


class TestExactClips:
    def test_it_is_the_mean_of_the_clips_that_could_have_been(self) -> None:
        """Against the definition, in plain loops."""
        world, schedule = MovingShapes(frames=3, size=4, shapes=("bar",)), FlowSchedule()
        exact = ExactClips(clips=world, schedule=schedule)
        generator = torch.Generator().manual_seed(0)
        clip = world.sample(2, generator=generator)
        t = torch.tensor([[0.6, 0.7, 0.9], [0.5, 0.8, 0.6]])
        wide = t[:, None, :, None, None]
        x_t = (1 - wide) * clip + wide * torch.randn(clip.shape, generator=generator)
        weights = torch.stack(
            [
                torch.stack(
                    [-(((x - (1 - s) * c) / s).square().sum() / 2) for c in world.clips.double()]  # log likelihood
                )
                for x, s in zip(x_t.double(), wide.double(), strict=True)
            ]
        ).softmax(1)
        expected = torch.einsum("nk,kcthw->ncthw", weights, world.clips.double()).float()
        torch.testing.assert_close(exact(x_t, wide.expand(-1, -1, 3, -1, -1)), expected)
        assert (weights > 0.01).sum() > 2  # it was no question of one clip alone

    def test_without_noise_it_is_the_clip(self) -> None:
        world = MovingShapes(frames=3, size=4)
        clip = world.sample(5, generator=torch.Generator().manual_seed(0))
        assert torch.equal(ExactClips(clips=world, schedule=FlowSchedule())(clip, torch.zeros(5)), clip)


class TestMovingShapes:
    def test_every_clip_moves_one_pixel_a_frame_in_a_straight_line(self) -> None:
        world = MovingShapes(frames=5, size=6)
        assert len(world.clips) == len(world.clips.flatten(1).unique(dim=0)) == 2 * 36 * 8
        assert float(world.acceleration(world.clips).max()) < 1e-5
        first, second = world.clips[:, :, 0], world.clips[:, :, 1]
        moved = torch.stack([first.roll((down, right), (2, 3)) for down in (-1, 0, 1) for right in (-1, 0, 1)])
        agree = (moved == second).flatten(2).all(2)
        assert agree.any(0).all()
        assert not agree[4].any()  # none stands still

    def test_what_is_no_such_clip_is_told_apart(self) -> None:
        world = MovingShapes(frames=5, size=6)
        clip = world.clips[:50]
        stopped = torch.cat((clip[:, :, :3], clip[:, :, 2:3], clip[:, :, 2:3]), 2)
        assert float(world.acceleration(stopped).amax(1).min()) > 0.9
        assert float(world.distance(clip).max()) == 0
        assert float(world.distance(stopped).min()) > 0.1

    def test_shapes_have_names(self) -> None:
        with pytest.raises(ValueError, match="'square', 'cross', 'bar'"):
            MovingShapes(shapes=("disc",))
