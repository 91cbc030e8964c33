"""A pyramid that recolours begins as the transfer of colours between two domains, and may get anywhere from there."""

import math

import pytest
import torch

from viceversa.model.networks import Generator, initialise
from viceversa.model.pyramid import HUE_DRAWN, KEPT
from viceversa.model.recolour import FARTHEST, Recolour, transfer


def colours(channels, light, spread, seed):
    random = torch.Generator().manual_seed(seed)
    mixed = torch.randn(channels, channels, generator=random) @ torch.randn(channels, 5000, generator=random)
    return light + spread * mixed


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transfer_gives_mean_and_covariance_of_the_other_domain_and_back(channels):
    day, night = colours(channels, 0.2, 0.1, 1), colours(channels, -0.7, 0.02, 2)
    there, back = transfer(day, night), transfer(night, day)
    moved = there[0] @ day + there[1][:, None]
    torch.testing.assert_close(moved.mean(1), night.mean(1))
    torch.testing.assert_close(torch.cov(moved), torch.cov(night), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(back[0] @ moved + back[1][:, None], day, atol=1e-3, rtol=0)
    torch.testing.assert_close(there[0], there[0].T)  # no colour is turned into another more than has to be


def test_between_gray_and_colours_light_decides():
    gray, colour = colours(1, 0.1, 0.2, 1), colours(3, -0.5, 0.05, 2)
    matrix, offset = transfer(gray, colour)
    moved = matrix @ gray + offset[:, None]
    torch.testing.assert_close((moved.mean(1), moved.std(1)), (colour.mean(1), colour.std(1)))
    matrix, offset = transfer(colour, gray)
    moved = matrix @ colour + offset[:, None]
    torch.testing.assert_close((moved.mean(1), moved.std(1)), (gray.mean(1), gray.std(1)))


def recolouring():
    network = Generator(kind="pyramid", levels=1, width=4, blocks=1, recolours=True).build()
    initialise(network, torch.Generator().manual_seed(0))
    return network


def test_a_pyramid_begins_at_the_transfer_of_colours_a_little_grayer_but_for_what_is_faintly_drawn():
    day, night = colours(3, 0.1, 0.15, 1), colours(3, -0.6, 0.05, 3)
    network = recolouring()
    network.begin(day, night)
    matrix, offset = transfer(day, night)
    wanted = (matrix @ day + offset[:, None]).clamp(-FARTHEST, FARTHEST)[:, :1024].view(1, 3, 32, 32)
    wanted = (wanted.atanh() * (1 + math.tanh(KEPT)) / 2).tanh()
    with torch.no_grad():
        faint, _ = network.translated(day[:, :1024].view(1, 3, 32, 32), None)
        network.small.model[-1].weight.zero_()
        exact, _ = network.translated(day[:, :1024].view(1, 3, 32, 32), None)
    torch.testing.assert_close(exact, wanted)
    assert 0 < (faint - wanted).abs().mean() < 0.05


def test_what_is_kept_of_the_recoloured_photo_is_learned_in_each_place():
    day = colours(3, 0.3, 0.3, 1)
    network = recolouring()
    network.begin(day, colours(3, -0.6, 0.1, 3))
    image, last = day[:, :1024].view(1, 3, 32, 32), network.small.model[-1]
    with torch.no_grad():
        last.weight[:3].zero_()
        last.bias[:3].zero_()
        last.bias[-1] = -20  # nothing is kept, and nothing drawn: gray
        assert network.translated(image, None)[0].abs().max() < 1e-6
        last.bias[-1] = 20  # all is
        torch.testing.assert_close(network.translated(image, None)[0], network.recolour(image).tanh())
    last.bias.data[-1] = KEPT
    network.translated(image, None)[0].square().mean().backward()
    assert last.weight.grad[-1].abs().max() > 0


def test_hue_is_drawn_more_faintly_than_light():
    network, image = recolouring(), torch.zeros(1, 3, 32, 32)
    network.begin(colours(3, 0.0, 0.2, 1), colours(3, 0.0, 0.2, 2))
    last = network.small.model[-1]

    def drawn(*bias):
        with torch.no_grad():
            last.weight[:3] = 0
            last.bias[:3] = torch.tensor(bias)
            return network.translated(image, None)[0][0, :, 0, 0].atanh()

    nothing = drawn(0, 0, 0)
    torch.testing.assert_close(drawn(0.3, 0.3, 0.3) - nothing, torch.tensor([0.3, 0.3, 0.3]))
    torch.testing.assert_close(drawn(0.3, 0.0, -0.3) - nothing, HUE_DRAWN * torch.tensor([0.3, 0.0, -0.3]))


def test_images_of_one_colour_do_no_harm():
    recolour = Recolour(3, 3)
    for source, target in ((torch.zeros(3, 9), torch.ones(3, 9)), (torch.ones(3, 9), colours(3, 0, 0.2, 1))):
        recolour.begin(source, target)
        assert recolour(source[None, :, :, None]).isfinite().all()


def test_it_is_computed_in_float32_whatever_the_rest():
    network = Generator(kind="pyramid", levels=1, width=2, blocks=1, recolours=True).build().eval()
    dark = torch.full((1, 3, 32, 32), -0.95) + 0.003 * torch.rand(1, 3, 32, 32)
    network.recolour.begin(dark.flatten(2)[0], colours(3, 0.0, 0.3, 1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = network.recolour(dark)
    torch.testing.assert_close(rough, network.recolour(dark).detach(), rtol=0, atol=0)
