"""The pyramid keeps every pixel in its place, costs what its small copy costs, and does the same in strips."""

import pytest
import torch

from viceversa.model import pyramid
from viceversa.model.networks import Generator, initialise
from viceversa.model.pyramid import halvings, raised, within_edges


def generator(**choices):
    torch.manual_seed(0)
    return Generator(kind="pyramid", width=4, blocks=1, upsample="nearest", **{"levels": 2, **choices}).build().eval()


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_gains_of_one_give_the_image_back(levels):
    copies = halvings(torch.rand(2, 3, 64, 96), levels)
    assert [tuple(c.shape[2:]) for c in copies] == [(64 >> n, 96 >> n) for n in range(levels + 1)]
    image = copies[-1]
    for level in reversed(range(levels)):
        below, image = image, raised(image, torch.ones_like(copies[-1]), copies[level], copies[level + 1])
        without = raised(below, None, copies[level], copies[level + 1])
    torch.testing.assert_close(without, copies[0])
    torch.testing.assert_close(image, copies[0])


def test_a_gain_of_zero_leaves_the_doubled_copy():
    image, half = halvings(torch.rand(1, 3, 32, 32), 1)
    torch.testing.assert_close(raised(half, torch.zeros_like(half), image, half), pyramid.double(half))


def test_detail_gets_fainter_with_the_light_and_never_stronger():
    """What is half as light shows half the contrast, in each colour by itself; what is twice as light the same."""
    image, half = halvings(torch.rand(1, 3, 32, 32) - 0.5, 1)
    of = [0.5, 1.0, 2.0]
    light = torch.tensor(of).view(1, 3, 1, 1)
    small = (half + 1 + pyramid.BLACK) * light - 1 - pyramid.BLACK
    band = image - pyramid.double(half)
    found = raised(small, None, image, half) - pyramid.double(small)
    torch.testing.assert_close(found, band * light.clamp(max=1))


def test_the_small_copy_is_multiplied_and_added_to():
    """As the last layer's biases say, where its weights are silent; a gain is of all colours alike."""
    network, image = generator(), 0.2 * torch.rand(1, 3, 16, 24) - 0.4
    last = network.small.model[-1]
    last.weight.data.zero_()
    times, added, drawn = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.3, -0.1], [0.1, 0.0, 0.0]])
    last.bias.data = torch.cat([times, added, drawn, torch.tensor([0.0, 9.0])])
    with torch.no_grad():
        colours, gains = network.translated(image, None)
    torch.testing.assert_close(colours, times.view(3, 1, 1) * image + (added + drawn).view(3, 1, 1))
    assert [tuple(gain.shape) for gain in gains] == [(1, 1, 16, 24)] * 2
    assert gains[0].eq(1).all() and gains[1].gt(1.99).all()


def test_what_light_does_is_smoothed_within_edges_not_across():
    """Noise goes; a step that is a step of the guide, too, stays as steep as it is there."""
    step = (torch.arange(96) >= 48).float().expand(1, 1, 96, 96)
    guide = 1.6 * step - 0.8 + 0.01 * torch.randn(1, 1, 96, 96)
    noisy = 0.5 - step + 0.3 * torch.randn(1, 1, 96, 96)
    smooth = within_edges(noisy, guide)
    away = [*range(46), *range(50, 96)]
    assert (smooth - (0.5 - step))[..., away].abs().max() < 0.15
    assert (smooth[..., 47] - smooth[..., 48]).min() > 0.75
    torch.testing.assert_close(within_edges(torch.full_like(guide, 0.3), guide), torch.full_like(guide, 0.3))


@pytest.mark.parametrize("channels_in, channels_out", [(3, 3), (1, 3), (3, 1)])
def test_it_begins_as_half_of_a_transfer_of_colours(channels_in, channels_out):
    network = generator(channels_in=channels_in, channels_out=channels_out)
    image, other = 0.2 * torch.randn(1, channels_in, 32, 48) + 0.3, 0.1 * torch.randn(1, channels_out, 32, 48) - 0.5
    if channels_in == 3 and channels_out == 1:
        image = image[:, :1].expand(-1, 3, -1, -1)  # gray: its mean over the channels has their deviation
    source, target = ((x.mean((0, 2, 3)), x.std((0, 2, 3))) for x in (image, other))
    network.begin(source, target)
    with torch.no_grad():
        found, gains = network.translated(image, None)
    torch.testing.assert_close(found.mean((0, 2, 3)), target[0])
    torch.testing.assert_close(found.std((0, 2, 3)), target[1] / 2)
    assert all(gain.eq(1).all() for gain in gains)


def test_each_size_on_the_way_up_is_given_what_was_there_on_the_way_down():
    """So a pixel tells where it is although all that goes through the quarter size is silenced."""
    network, x = generator(), torch.zeros(1, 3, 16, 16)
    for piece in (*network.small.blocks, network.small.decoder[0]):
        for weight in piece.parameters():
            weight.data.zero_()
    dotted = x.clone()
    dotted[0, :, 8, 5] = 1
    with torch.no_grad():
        change = (network.small(dotted) - network.small(x)).abs().sum(1)[0]
    row, column = divmod(int(change.argmax()), 16)
    assert abs(row - 8) <= 1 and abs(column - 5) <= 1
    plain = Generator(width=4, blocks=1).build()
    assert (len(plain.encoder), len(plain.decoder)) == (1, 1)  # the paper's has no such way


@pytest.mark.parametrize("channels_in, channels_out", [(3, 3), (1, 3), (3, 1)])
@pytest.mark.parametrize("levels", [1, 3])
def test_shapes_and_range(levels, channels_in, channels_out):
    network = generator(levels=levels, channels_in=channels_in, channels_out=channels_out)
    side = network.spec.smallest
    with torch.no_grad():
        y = network(3 * torch.rand(2, channels_in, side, 2 * side))
    assert y.shape == (2, channels_out, side, 2 * side) and y.abs().max() <= 1
    assert network.spec.multiple == 4 * 2**levels


def test_in_strips_it_is_the_same(monkeypatch):
    network, x = generator(levels=3), torch.rand(1, 3, 352, 96) * 2 - 1
    with torch.no_grad():
        monkeypatch.setattr(pyramid, "STRIP", 1000)
        whole = network(x)
        monkeypatch.setattr(pyramid, "STRIP", 64)
        torch.testing.assert_close(network(x), whole, atol=1e-6, rtol=0)  # interpolated in another order


def test_detail_stays_where_it_is():
    """A dot in the input is a dot at the same place in the output, at the size of one pixel."""
    network, x = generator(), torch.zeros(1, 3, 128, 128)
    initialise(network, torch.Generator().manual_seed(0))
    dotted = x.clone()
    dotted[0, :, 77, 51] = 1
    with torch.no_grad():
        change = (network(dotted) - network(x)).abs().sum(1)[0]
    assert divmod(int(change.argmax()), 128) == (77, 51)


def test_bf16_keeps_the_photos_own_detail_in_float32():
    network, x = generator(), torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x)
    assert rough.dtype == torch.float32 and (rough - exact).abs().mean() < 0.02
