"""The history keeps the rule of the recipe exactly: image by image, around the moment when it is full, and 0."""

import random

import pytest
import torch

from viceversa.model.history import History


def plain(size, new, draws, kept):
    """The rule, written as in the recipe, one image at a time."""
    shown = []
    for image, (coin, slot) in zip(new, draws, strict=True):
        if size == 0:
            shown.append(image)
        elif len(kept) < size:
            kept.append(image)
            shown.append(image)
        elif coin > 0.5:
            place = int(slot * size)
            shown.append(kept[place])
            kept[place] = image
        else:
            shown.append(image)
    return shown


@pytest.mark.parametrize("size", [0, 1, 3, 50])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_equals_the_rule_image_by_image(size, batch):
    history, kept, source = History(size, 1, 2, 2), [], random.Random(7)
    for n in range(60):
        new = [float(n * batch + i + 1) for i in range(batch)]
        draws = torch.tensor([[source.random(), source.random()] for _ in new])
        expected = plain(size, new, draws.tolist(), kept)
        images = torch.tensor(new).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
        assert history(images, draws)[:, 0, 0, 0].tolist() == expected
    assert history.images[: len(kept), 0, 0, 0].tolist() == kept


def test_half_of_what_is_shown_is_old_and_every_slot_is_used():
    history, random_source = History(50, 1, 1, 1), torch.Generator().manual_seed(0)
    old, places = 0, set()
    for n in range(4050):
        image = torch.full((1, 1, 1, 1), float(n))
        shown = history(image, torch.rand(1, 2, generator=random_source)).item()
        if n >= 50 and shown != n:
            old += 1
        places.add(int(history.images.argmax()))
    assert abs(old / 4000 - 0.5) < 4 * (0.25 / 4000) ** 0.5  # four standard deviations
    assert len(places) == 50


def test_what_it_shows_carries_no_gradient_and_keeps_its_kind():
    fake = torch.ones(2, 3, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    shown = History(5, 3, 4, 4)(fake, torch.rand(2, 2))
    assert not shown.requires_grad and shown.dtype == torch.bfloat16
