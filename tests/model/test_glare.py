"""Lamps go out by day: what is white in a photo of the dark."""

import pytest
import torch

from viceversa.model.glare import filled, put_out

BLUE, RED = (torch.tensor(colour).view(1, 3, 1, 1) for colour in ([-0.2, 0.0, 0.4], [0.9, -0.3, -0.3]))


def night(*lights):
    """A dark photo with lights, (1, 1, 96, 128) each in [0, 1], and the blue day that it became, red where they are."""
    light = torch.stack(lights).amax(0)
    return (2 * (0.1 + 0.9 * light) - 1).expand(1, 3, 96, 128), torch.where(light > 0.9, RED, BLUE)


def box(top, left, height, width):
    made = torch.zeros(1, 1, 96, 128)
    made[..., top : top + height, left : left + width] = 1
    return made


def glare(top, left, reach):
    rows, columns = torch.arange(96)[:, None] - top, torch.arange(128) - left
    return (1.3 - (rows**2 + columns**2).sqrt() / reach).clamp(0, 1)[None, None]


@pytest.mark.parametrize("lamp", [box(40, 60, 4, 5), glare(48, 64, 24)], ids=["bulb", "glare"])
def test_a_lamp_gets_the_colours_around_it(lamp):
    image, colours = night(lamp)
    made, where = put_out(colours, image)
    core = (lamp == 1).expand(1, 3, -1, -1)
    before, after = ((x - BLUE).abs()[core].max() for x in (colours, made))
    assert before > 0.6 and after < 0.3 * before
    assert where[lamp == 1].min() > 0.8 and where[lamp == 0].float().mean() < 0.02
    far = where == 0
    assert torch.equal(made[far.expand_as(made)], colours[far.expand_as(made)])


def test_a_lit_wall_stays_as_light_and_loses_its_hue():
    wall = box(30, 40, 30, 40)
    image, colours = night(wall)
    made, where = put_out(colours, image)
    inside = (wall == 1).squeeze()
    assert where[..., inside].max() < 0.35
    lightness = RED.mean()
    assert (made.mean(1)[..., inside] - lightness).abs().mean() < 0.15
    assert (made.amax(1) - made.amin(1))[..., inside].max() < 0.3 < (RED.max() - RED.min()) / 3


@pytest.mark.parametrize("change", ["by day", "to night"])
def test_nothing_goes_out_by_day_or_on_the_way_to_a_night(change):
    image, colours = night(box(40, 60, 4, 5))
    lighter = (image + 0.9).clamp(max=1)  # a white house in the sun, which stays white
    image, colours = (image, colours - 1.1) if change == "to night" else (lighter, lighter + 0.2)
    made, where = put_out(colours, image)
    assert torch.equal(made, colours) and not where.any()


def test_in_a_fog_full_of_light_what_gets_dark_goes_out():
    lamp = glare(48, 64, 24)
    image = (night(lamp)[0] + 0.9).clamp(max=1)
    core, blot = (lamp == 1).expand_as(image), torch.full_like(image, -0.8)
    colours = torch.where(core, blot, torch.full_like(image, 0.5))
    made, where = put_out(colours, image)
    assert where[lamp == 1].min() > 0.8 and made[core].min() > 0.3


def test_what_is_filled_comes_from_as_near_as_it_is_known():
    known, colours = 1 - box(0, 0, 96, 100), torch.full((1, 2, 96, 128), 0.3)
    torch.testing.assert_close(filled(colours, known), colours, rtol=0, atol=1e-4)
    halves = torch.cat([torch.zeros(1, 1, 96, 64), torch.ones(1, 1, 96, 64)], 3)
    made = filled(halves, 1 - box(40, 20, 8, 8) - box(40, 100, 8, 8))
    assert made[..., 40:48, 20:28].max() < 0.1 and made[..., 40:48, 100:108].min() > 0.9
