"""The pyramid keeps every pixel in its place, costs what its small copy costs, and does the same in strips."""

import pytest
import torch

from viceversa.device import on_threads
from viceversa.model import pyramid
from viceversa.model.guided import BLACK, double, guided
from viceversa.model.networks import Generator
from viceversa.model.pyramid import LARGE, STRIP, WIDE, by_strips, halvings, raised
from viceversa.model.tone import tone, toned


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
    torch.testing.assert_close(raised(half, torch.zeros_like(half), image, half), double(half))


@pytest.mark.parametrize(
    "light, contrast",
    [([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]), ([2, 2, 2], [1, 1, 1]), ([0.8, 0.4, 0.2], [0.8, 0.4, 0.2]), ([4, 1, 1], None)],
)
def test_detail_gets_fainter_with_the_light_in_its_colour_and_never_stronger(light, contrast):
    """What is half as light shows half the contrast, what is twice as light the same, under redder light redder."""
    image, half = halvings(torch.rand(1, 3, 32, 32) - 0.5, 1)
    small = (half + 1 + BLACK) * torch.tensor(light).view(1, 3, 1, 1) - 1 - BLACK
    band = image - double(half)
    for hue, reddest in ((False, [1, 1, 1]), (True, [2, 0.5, 0.5])):
        found = raised(small, None, image, half, hue) - double(small)
        torch.testing.assert_close(found, band * torch.tensor(contrast or reddest).view(1, 3, 1, 1))


@pytest.mark.parametrize("follows, log_light, onto", [(False, False, False), (True, False, True), (True, True, True)])
@pytest.mark.parametrize("levels", [1, 2])
def test_gradients_of_what_is_darker_than_black_are_numbers(levels, follows, log_light, onto):
    """A fake, on its way back, may be: where its light and BLACK together are nothing, nothing is divided by that."""
    network = generator(levels=levels, guided=follows, log_light=log_light, recolours=onto).train()
    for level in (-1 - BLACK, -1.0, -3.0):
        x = torch.full((1, 3, 64, 64), level)
        x[..., ::7] += 0.01 * torch.rand(1, 3, 64, 10)
        network(x.requires_grad_()).abs().mean().backward()
        assert all(t.grad.isfinite().all() for t in (x, *network.parameters()) if t.grad is not None)


def test_each_size_on_the_way_up_is_given_what_was_there_on_the_way_down():
    """So a pixel tells where it is although all that goes through the quarter size is silenced."""
    network, x = generator(), torch.zeros(1, 3, 64, 64)
    for piece in (*network.small.blocks, network.small.decoder[0]):
        for weight in piece.parameters():
            weight.data.zero_()
    dotted = x.clone()
    dotted[0, :, 32:36, 20:24] = 1  # one pixel of the small copy
    with torch.no_grad():
        (small, _), (without, _) = (network.translated(halvings(image, 2)[-1], None) for image in (dotted, x))
    change = (small - without).abs().sum(1)[0]
    assert divmod(int(change.argmax()), 16) == (8, 5)
    plain = Generator(width=4, blocks=1).build()
    assert (len(plain.encoder), len(plain.decoder)) == (1, 1)  # the paper's has no such way


def test_a_guided_pyramid_has_the_weights_of_any_other_and_only_its_small_image_differs():
    plain, follows = generator(), generator(guided=True)
    follows.load_state_dict(plain.state_dict())
    small = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        (colours, gains), (smooth, same) = (network.train().translated(small, None) for network in (plain, follows))
    torch.testing.assert_close(smooth, guided(colours, small, plain.spec.levels))
    for three, one in zip(gains, same, strict=True):  # of the same numbers, before tanh, their mean
        torch.testing.assert_close(one, 1 + (three - 1).atanh().mean(1, keepdim=True).tanh())


@pytest.mark.parametrize("follows, onto", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("channels_in, channels_out", [(3, 3), (1, 3), (3, 1)])
@pytest.mark.parametrize("levels", [1, 3])
def test_shapes_and_range(levels, channels_in, channels_out, follows, onto):
    channels = {"channels_in": channels_in, "channels_out": channels_out}
    network = generator(levels=levels, guided=follows, log_light=follows, recolours=onto, **channels)
    side = network.spec.smallest
    with torch.no_grad():
        y = network(3 * torch.rand(2, channels_in, side, 2 * side))
    assert y.shape == (2, channels_out, side, 2 * side) and y.abs().max() <= 1
    assert network.spec.multiple == 4 * 2**levels


@pytest.mark.parametrize("follows", [False, True])
def test_in_use_light_is_spread_and_has_the_contrast_that_was_counted(follows):
    network, x = generator(guided=follows), torch.rand(2, 3, 64, 64)  # no night, whose lamps would go out
    with torch.no_grad():
        drawn, small = network.train()(x), network.translated(halvings(x, 2)[-1], None)[0]
        network.contrast.fill_(1.5)
        expected = toned(drawn, *tone(small, halvings(x, 2)[-1]), network.contrast)
        torch.testing.assert_close(network.eval()(x), expected)
        assert (expected - drawn).abs().mean() > 0.05
        torch.testing.assert_close(network.train()(x), drawn)


def test_with_one_level_it_stays_as_it_was_drawn():
    network, x = generator(levels=1, guided=True), torch.rand(2, 3, 16, 16) - 1
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), network.train()(x).clamp(-1, 1))


def test_weights_of_before_contrast_was_counted_load():
    network = generator()
    old = {name: value for name, value in network.state_dict().items() if name != "contrast"}
    network.contrast.fill_(1.5)
    network.load_state_dict(old)
    assert network.contrast == 1 and "contrast" not in old


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_in_strips_it_is_the_same(threads, mode, monkeypatch):
    network, x = generator(levels=3), torch.rand(1, 3, 352, 96) * 2 - 1
    with on_threads(threads), mode():
        monkeypatch.setattr(pyramid, "WIDE", 1000)
        whole = network(x)
        for wide, large in ((64, 1 << 22), (32, 1)):  # by strips, and by small ones, each core its own
            monkeypatch.setattr(pyramid, "WIDE", wide)
            monkeypatch.setattr(pyramid, "LARGE", large)
            torch.testing.assert_close(network(x), whole, rtol=0, atol=1e-6)  # the last bit, by several threads
            assert torch.get_num_threads() == threads


@pytest.mark.parametrize("width, rows", [(LARGE, STRIP), (1, WIDE)])
def test_each_strip_is_done_once_and_what_it_raises_comes(width, rows):
    done = []
    with on_threads(3):
        by_strips(lambda *ends: done.append(ends), 2 * rows + 2, width, torch.device("cpu"))
        assert sorted(done) == [(0, rows), (rows, 2 * rows), (2 * rows, 2 * rows + 2)]
        with pytest.raises(ZeroDivisionError):
            by_strips(lambda top, bottom: 1 // top, 2 * rows, width, torch.device("cpu"))
        assert torch.get_num_threads() == 3


def test_detail_stays_where_it_is():
    """A dot in the input is a dot at the same place in the output, at the size of one pixel."""
    network, x = generator(), torch.zeros(1, 3, 128, 128)
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
