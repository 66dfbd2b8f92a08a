"""One of several captions: each has its turn, the generator alone decides, nothing else is touched."""

from __future__ import annotations

import torch

from neurotrain.batch import ImageTextSample
from neurotrain.data.transforms import ImageOneCaption


def test_each_caption_has_its_turn_and_the_generator_alone_decides() -> None:
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    sample: ImageTextSample = {"image": image, "caption": "one\ntwo\nthree", "id": "a", "source": "toy"}
    transform, state = ImageOneCaption(), torch.get_rng_state()
    drawn = [transform(sample, torch.Generator().manual_seed(seed)) for seed in range(60)]
    again = [transform(sample, torch.Generator().manual_seed(seed)) for seed in range(60)]
    captions = [found["caption"] for found in drawn]
    assert captions == [found["caption"] for found in again]
    assert all(captions.count(name) > 8 for name in ("one", "two", "three"))
    assert all(found["image"] is image and found["id"] == "a" for found in drawn)
    assert sample["caption"] == "one\ntwo\nthree"
    assert torch.equal(torch.get_rng_state(), state)
    assert not transform.deterministic
