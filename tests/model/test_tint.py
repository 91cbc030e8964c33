"""Colours on the whole are held; a picture's own are not."""

import torch

from viceversa.model.tint import MOST, Tint, moments


def learned(shift, steps=800):
    """What fakes of random brightness, all shifted by something that learns, are shifted by in the end."""
    random = torch.Generator().manual_seed(0)
    tint, added = Tint(3), torch.tensor(shift).view(1, 3, 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([added], 0.002)
    for _ in range(steps):
        brightness = 0.3 * torch.randn(2, 1, 1, 1, generator=random)
        noise = 0.1 * torch.randn(2, 3, 8, 8, generator=random)
        loss = tint(brightness[:1] + noise[:1] + added, brightness[1:] + noise[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert 0 <= loss <= 1
    return added.detach().flatten()


def test_a_tint_that_all_fakes_have_goes():
    assert learned([0.5, 0.0, -0.5]).abs().max() < 0.15


def test_one_picture_may_be_as_it_likes_where_others_make_up_for_it():
    tint = Tint(3)
    for n in range(300):
        loss = tint(torch.full((1, 3, 8, 8), 0.4 if n % 2 else -0.4), torch.zeros(1, 3, 8, 8))
    assert loss < 0.1
    for _ in range(300):
        loss = tint(torch.full((1, 3, 8, 8), 0.4), torch.zeros(1, 3, 8, 8))
    assert loss > 0.45  # all means are off by too much, no deviation


def test_what_is_held():
    red, green, blue = (x := torch.randn(4, 3, 16, 16)).unbind(1)
    spread = [pair.std((1, 2)).mean() for pair in (red - green, red - blue, green - blue)]
    torch.testing.assert_close(moments(x), torch.stack([red.mean(), green.mean(), blue.mean(), *spread]))
    torch.testing.assert_close(moments(x[:, :1]), red.mean()[None])


def test_colours_count_beside_light():
    """As light and as rich in contrast as the real one, but gray: more colour is wanted, and has a slope to go by."""
    real = 0.5 * torch.randn(1, 3, 16, 16)
    fake = real[:, :1].expand(1, 3, 16, 16).clone().requires_grad_()
    tint = Tint(3)
    for _ in range(100):
        loss = tint(fake, real)
    loss.backward()
    assert loss > 0.3 and torch.isfinite(fake.grad).all()
    coloured = (real[:, :1] + torch.tensor([0.01, 0.0, -0.01]).view(3, 1, 1) * real[:, 1:2]).requires_grad_()
    tint(coloured, real).backward()
    assert (coloured.grad * (coloured - real[:, :1])).sum() < 0


def test_contrast_is_counted_over_all_pictures_and_not_pushed():
    random = torch.Generator().manual_seed(0)
    real = torch.randn(40, 1, 16, 16, generator=random).expand(40, 3, 16, 16) + 0.3
    real[::2] += 1.0  # some are lighter than others on the whole
    for factor, drawn in ((1.5, real / 1.5), (MOST, real / 4), (1.0, 9 * real)):
        tint = Tint(3)
        tint.count(drawn, real)  # right from the first images on
        torch.testing.assert_close(tint.contrast(), torch.tensor(factor))
        for n in range(40):
            tint.count(drawn[n : n + 1], real[n : n + 1])
        torch.testing.assert_close(tint.contrast(), torch.tensor(factor))
    fake = (real / 4).requires_grad_()
    tint(fake, real).backward()
    assert fake.grad.std() < 1e-6  # all pixels alike, by the mean: nothing asks for more contrast
