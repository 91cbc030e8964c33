"""Nights are steep, and days open: how light is spread."""

import pytest
import torch

from viceversa.model.tone import tone, toned


def light(x):
    return (1 + x) / 2


def made(colours, image, contrast=1.0):
    return toned(colours, *tone(colours, image), contrast=torch.tensor(contrast))


@pytest.fixture
def night():
    """A picture of the dark, (1, 3, 40, 50): a gray sky, a street, a lamp; and the day that it was."""
    picture = torch.full((1, 3, 40, 50), 0.1)
    picture[..., 20:, :] = 0.3
    picture[..., 30:34, 30:34] = 0.7
    return 2 * picture - 1, torch.full((1, 1, 40, 50), 0.2)


def test_what_gets_darker_gets_steeper_and_loses_half_of_what_that_takes(night):
    colours, day = night
    before, after = light(day).mean(), light(colours).mean()
    negative, power, *_ = tone(colours, day)
    assert negative == 0 and torch.isclose(power, 2 - after / before)
    steep = (light(colours) ** power).mean()  # of gray
    new = light(made(colours, day))
    torch.testing.assert_close(new.mean(), (after * steep).sqrt())
    assert new[..., 0, 0].max() < 0.06 and new[..., 31, 31].min() > 0.75


def test_what_gets_lighter_is_changed_as_its_negative_is(night):
    colours, day = night
    torch.testing.assert_close(made(-colours, -day), -made(colours, day))


def test_what_is_as_light_as_it_was_stays(night):
    colours, _ = night
    torch.testing.assert_close(made(colours, colours.mean(1, keepdim=True)), colours)


def test_contrast_is_about_the_mean_and_ends_at_black_and_white(night):
    colours, day = night
    for change in (colours, -colours):
        image = day if change is colours else -day
        once, twice = made(change, image), made(change, image, 2.0)
        torch.testing.assert_close(twice, (once.mean() + 2 * (once - once.mean())).clamp(-1, 1))


def test_colours_get_stronger_but_half_as_much_as_each_alone_would(night):
    _, day = night
    lawn = torch.tensor([-0.8, -0.4, -0.9]).view(1, 3, 1, 1).expand(1, 3, 40, 50)
    power = tone(lawn, day)[1]
    new, old = light(made(lawn, day)), light(lawn)
    ratio, alone = (x[0, 1, 0, 0] / x[0, 2, 0, 0] for x in (new, old**power))
    assert old[0, 1, 0, 0] / old[0, 2, 0, 0] * 1.2 < ratio < alone / 1.2


def test_pictures_of_a_batch_do_not_ask_each_other(night):
    colours, day = night
    both = made(torch.cat([colours, -colours]), torch.cat([day, -day]))
    torch.testing.assert_close(both[:1], made(colours, day))


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_black_and_white_are_finite(value):
    flat = torch.full((1, 3, 8, 8), value)
    for image in (flat, -flat):
        torch.testing.assert_close(made(flat, image), flat)
