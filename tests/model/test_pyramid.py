"""The pyramid keeps every pixel in its place, costs what its small copy costs, and does the same in strips."""

import pytest
import torch
from torch.nn import functional as F

from viceversa.device import on_threads
from viceversa.model import pyramid
from viceversa.model.guided import BLACK, EVEN, busy, double, guided, lamps, lit, logarithmic, solved
from viceversa.model.networks import Generator
from viceversa.model.pyramid import STRIP, by_strips, halvings, raised


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


@pytest.mark.parametrize("k", [1, 3])
def test_the_filters_equations_are_solved_as_by_a_library(k):
    torch.manual_seed(0)
    root, right = torch.randn(2, k, k, 4, 5, dtype=torch.float64), torch.randn(2, k, 2, 4, 5, dtype=torch.float64)
    covariance = torch.einsum("bijhw,bkjhw->bikhw", root, root)
    last = (covariance + EVEN * torch.eye(k)[:, :, None, None]).permute(0, 3, 4, 1, 2)
    expected = torch.linalg.solve(last, right.permute(0, 3, 4, 1, 2)).permute(0, 3, 4, 1, 2)
    torch.testing.assert_close(solved(covariance, right), expected)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_colours_follow_the_photos_edges(channels):
    """A bright sky that became a dark one, over a wall that became a light one, with noise on both: the noise goes, the
    edge stays as sharp as the photo's, although the other way round."""
    torch.manual_seed(0)
    photo = torch.full((1, channels, 64, 64), -0.8)
    photo[:, :, :30] = 0.8
    clean = -0.7 * photo[:, :1].expand(1, 3, 64, 64) + 0.1
    noise = 0.3 * torch.randn(1, 3, 64, 64)
    found = guided(clean + noise, photo, 2)
    assert (found - clean).abs().mean() < 0.2 * noise.abs().mean()
    edge = (found[:, :, 30] - found[:, :, 29]).mean()
    assert edge > 0.9 * (clean[:, :, 30] - clean[:, :, 29]).mean()
    even = torch.full_like(clean, 0.3)
    torch.testing.assert_close(guided(even, photo, 2), even, atol=1e-5, rtol=0)


def test_a_glow_that_was_drawn_beside_an_edge_goes():
    """A sky that got dark, but for what glows above a roof: it is nearly as dark there as farther off."""
    photo = torch.full((1, 3, 96, 96), 0.8)
    photo[:, :, 60:] = -0.8
    clean = torch.where(photo > 0, -0.8, -0.3)
    glow = clean.clone()
    glow[:, :, 54:60] = 0.8
    found = (guided(glow, photo, 2) - clean).mean((0, 1, 3))
    assert found[54:60].max() < 0.2 * 1.6 and found[60:].abs().max() < 0.05


@pytest.mark.parametrize(("light", "levels"), [(-1.0, 2), (0.8, 2), (0.8, 1)])
def test_where_the_photo_is_even_nothing_with_an_edge_comes_out(light, levels):
    """A hill drawn where a night is black, or in a bright sky, becomes a slope from dark to light, and neither sky nor
    ground is lost."""
    photo, hill = torch.full((1, 3, 128, 64), light), torch.full((1, 3, 128, 64), 0.6)
    hill[:, :, 64:] = -0.6
    found = guided(hill, photo, levels)
    assert (found[:, :, 1:] - found[:, :, :-1]).abs().max() < 0.04 * 1.2
    torch.testing.assert_close(found.mean(), hill.mean(), atol=0.01, rtol=0)
    assert found[:, :, :4].mean() > 0.5 and found[:, :, -4:].mean() < -0.5


def test_what_was_drawn_into_the_dark_stays_where_the_photo_was_halved_once():
    """The small copy has more to say then: land and sea, which are both black by night."""
    photo, land = torch.full((1, 3, 128, 64), -1.0), torch.full((1, 3, 128, 64), 0.6)
    land[:, :, 64:] = -0.6
    torch.testing.assert_close(guided(land, photo, 1), land)


def test_by_the_logarithm_of_light_colours_follow_edges_in_the_dark():
    """A roof that is hardly darker than the sky by night: 4 of 255 before 13."""
    ends = torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(logarithmic(ends, 0.1), ends)
    doubled = logarithmic(torch.tensor([0.25, 0.5, 1.0, 2.0]) - 1, 0.1).diff()
    torch.testing.assert_close(doubled, doubled.mean().expand(3), atol=0, rtol=0.08)
    photo = torch.full((1, 3, 96, 96), -0.9)
    photo[:, :, 48:] = -0.97
    drawn = torch.full_like(photo, 0.6)
    drawn[:, :, 48:] = -0.4
    plain, by_log = (guided(drawn, photo, 2, log_light)[:, :, 46:50].mean((0, 1, 3)) for log_light in (False, True))
    assert plain[0] - plain[3] < 0.25 and by_log[0] - by_log[3] > 0.55


def test_light_comes_on_in_the_midst_of_things_and_not_along_an_edge():
    """A facade full of windows under a clear sky. Lamps were drawn all over it, and along its roof."""
    photo = torch.full((1, 3, 96, 96), 0.7)
    photo[:, :, 32:] = -0.2
    photo[:, :, 44:].view(3, 52, 12, 8)[..., 4:] = -0.8
    drawn = torch.full_like(photo, -0.8)
    drawn[:, :, 31:33, 10] = 1.0
    drawn[:, :, 60:68, 40:44] = 1.0  # a wall between two windows
    drawn[:, :, 76:84, 44:48] = 1.0  # a window

    def means(found):
        return found[:, :, 60:68, 40:44].mean(), found[:, :, 76:84, 44:48].mean()

    found = guided(drawn, photo, 2)
    assert min(means(found)) > 0.4 and found[:, :, 28:36].max() < -0.5
    floodlit = drawn.where(drawn > 0, photo - 1.2 * (photo > 0))  # as light as by day, under a dark sky
    assert min(means(guided(floodlit, photo, 2))) > 0.4
    share = busy(F.avg_pool2d(photo, 2))
    assert share[:, :, :18].max() < 0.05 and share[:, :, 28:, 6:-6].min() > 0.8
    assert max(means(guided(drawn + 1.0, photo - 0.2, 2))) < 0.4  # it got lighter: the same lamps do not come on
    assert min(means(guided(drawn + 1.0, photo - 0.2, 1))) > 0.8  # halved once, it lies in the midst of things, as snow


def test_light_fills_a_window_and_hangs_in_no_tree():
    """What is drawn is coarse: a glow across an edge; dots, where all is busy, that follow nothing of it."""
    photo = torch.full((1, 3, 64, 64), -0.2)
    photo[:, :, 16:48, 24:40] = -0.8
    glow = torch.full((1, 1, 64, 64), -0.8)
    glow[:, :, 18:46, 26:41] = 0.6
    found = lamps(glow, photo)
    middle = found[0, 0, 32]
    assert middle[23] < -0.7 and middle[24] > -0.5 and middle[29:40].min() > 0.5  # up to its left edge
    assert middle[40] < 0 < glow[0, 0, 32, 40] and middle[43:].max() < -0.6  # not beyond its right one
    leaves = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.8
    dots = torch.full_like(glow, -0.8)
    dots[:, :, 8::16, 8::16] = 1.0
    assert lamps(dots, leaves).max() < -0.3


def test_light_has_the_hue_of_what_it_falls_on_until_it_is_white():
    brown, none = torch.tensor([-0.6, -0.7, -0.8]).view(1, 3, 1, 1), torch.zeros(1, 1, 1, 1)
    torch.testing.assert_close(lit(brown, torch.ones_like(brown), none), brown)
    some, all_of_it = (lit(brown, torch.full_like(brown, x), none + 1) for x in (-0.4, 0.9))
    dark = 1 + BLACK
    torch.testing.assert_close(some + dark, (brown + dark) * (some + dark).mean() / (brown + dark).mean())
    assert some.mean() == pytest.approx(-0.4) and all_of_it.mean() == pytest.approx(0.9)
    assert (all_of_it + dark).std() / (all_of_it + dark).mean() < 0.6 * (some + dark).std() / (some + dark).mean()


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
def test_in_use_colours_get_the_contrast_that_was_counted(follows):
    network, small = generator(guided=follows), torch.rand(2, 3, 16, 16)  # no night, whose lamps would go out
    with torch.no_grad():
        drawn, gains = network.translated(small, None)
        network.contrast.fill_(1.5)
        got, same = network.translated(small, None)
        mean = drawn.mean((1, 2, 3), keepdim=True)
        torch.testing.assert_close(got - mean, 1.5 * (drawn - mean))
        torch.testing.assert_close([*same], [1.5 * gain for gain in gains])
        torch.testing.assert_close(network.train().translated(small, None)[0], drawn)


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
        monkeypatch.setattr(pyramid, "STRIP", 1000)
        whole = network(x)
        for rows in (32, 64):
            monkeypatch.setattr(pyramid, "STRIP", rows)
            torch.testing.assert_close(network(x), whole, rtol=0, atol=1e-6)  # the last bit, by several threads
            assert torch.get_num_threads() == threads


def test_each_strip_is_done_once_and_what_it_raises_comes():
    done = []
    with on_threads(3):
        by_strips(done.append, 2 * STRIP + 1, torch.device("cpu"))
        assert sorted(done) == [0, STRIP, 2 * STRIP]
        with pytest.raises(ZeroDivisionError):
            by_strips(lambda top: 1 // top, 2 * STRIP, torch.device("cpu"))
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
