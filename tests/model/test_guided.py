"""Colours follow the photo's edges, light comes on where much is to be seen, and where nothing is nothing comes."""

import pytest
import torch
from torch.nn import functional as F

from viceversa.model.guided import BLACK, EVEN, busy, guided, lamps, lit, logarithmic, solved


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
