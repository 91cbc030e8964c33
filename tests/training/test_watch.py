"""The watch says what goes wrong once, and keeps still about what is right."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from viceversa.training.watch import Alarm, Watch, are_inverted, correlation, first_not_finite, mean_distance

DATA = Path(__file__).parents[3] / "shared" / "data"


def scenes(count=4, channels=3, seed=0):
    """Pictures of large areas and of details: (N, C, 96, 96) in [-1, 1]."""
    random = torch.Generator().manual_seed(seed)
    parts = [torch.randn(count, channels, side, side, generator=random) for side in (3, 12, 96)]
    parts = [F.interpolate(part, size=96, mode="bilinear") for part in parts]
    return (0.5 * parts[0] + 0.3 * parts[1] + 0.05 * parts[2]).clamp(-1, 1)


def means(adversarial=0.4, discriminator=0.15):
    return {
        "adversarial/ab": adversarial, "adversarial/ba": 0.4,
        "discriminator/b": discriminator, "discriminator/a": 0.15,
    }  # fmt: skip


def look(watch, epoch, ab, ba=lambda x: 0.8 * x):
    day, night = scenes(seed=1), scenes(seed=2)
    return watch.pictures(epoch, {"ab": (day, ab(day)), "ba": (night, ba(night))})


def noise(x, size=0.01):
    return size * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def watch():
    return Watch(("day", "night"))


# A discriminator that has won


@pytest.mark.parametrize("adversarial", [0.98, 6.5])  # least squares, log-likelihood
def test_a_discriminator_that_has_won_is_named_once(watch, adversarial):
    said = [watch.losses(epoch, means(adversarial, 0.004)) for epoch in range(1, 30)]
    assert [len(words) for words in said] == [0] * 4 + [1] + [0] * 24
    assert "discriminator of night has won" in said[4][0] and "--discriminator-layers" in said[4][0]


def test_it_is_said_again_when_it_happens_again(watch):
    curve = [0.004] * 8 + [0.1] + [0.004] * 8
    said = [watch.losses(epoch, means(0.98, value)) for epoch, value in enumerate(curve, start=1)]
    assert sum(map(len, said)) == 2


def test_ordinary_losses_ring_no_alarm(watch):
    random = np.random.default_rng(0)
    for epoch in range(1, 200):  # a judge that grows stronger, with noise, and wins single epochs
        judge = 0.03 + 0.2 * math.exp(-epoch / 30) * random.uniform(0.5, 1.5)
        adversarial = min(1.0, 0.3 + 0.6 * epoch / 200 + 0.1 * random.random())
        if epoch % 7 == 0:
            judge, adversarial = 0.005, 0.99
        assert watch.losses(epoch, means(adversarial, judge)) == []


def test_a_weak_judge_and_a_judge_that_only_guesses_ring_no_alarm(watch):
    for epoch in range(1, 20):
        assert watch.losses(epoch, means(1.0, 0.25)) == []
        assert watch.losses(epoch, means(0.1, 0.01)) == []


# Collapse


def test_collapse_after_a_good_start_is_said_at_the_second_look(watch):
    assert look(watch, 1, lambda x: 0.7 * x) == []
    same = scenes(1, seed=9).expand(4, -1, -1, -1)
    assert look(watch, 2, lambda x: same + noise(x)) == []
    said = look(watch, 3, lambda x: same + noise(x))
    assert len(said) == 1 and "day to night has collapsed" in said[0] and "--cycle" in said[0]
    assert look(watch, 4, lambda x: same + noise(x)) == []


def test_collapse_from_the_beginning_is_said_after_ten_epochs(watch):
    said = [look(watch, epoch, lambda x: noise(x) - 0.5) for epoch in range(1, 15)]
    assert [len(words) for words in said] == [0] * 9 + [1] + [0] * 4


def test_flat_pictures_of_a_young_generator_are_no_collapse(watch):
    for epoch in range(1, 30):
        assert look(watch, epoch, lambda x, e=epoch: min(1.0, 0.02 * e) * x) == []


def test_noise_does_not_hide_a_collapse():
    x = scenes()
    assert mean_distance(torch.randn(4, 3, 256, 256) * 0.3) < 0.3 * mean_distance(x)


def test_a_domain_whose_pictures_are_alike_is_no_collapse(watch):
    """Nights that are nearly black: the generator is right to make them alike."""
    day, nights = scenes(seed=1), 0.02 * scenes(seed=2) - 0.95
    for epoch in range(1, 20):
        assert watch.pictures(epoch, {"ab": (day, 0.02 * day - 0.95), "ba": (nights, day)}) == []


def test_a_single_picture_is_never_a_collapse(watch):
    day, night = scenes(1, seed=1), scenes(1, seed=2)
    for epoch in range(1, 20):
        assert watch.pictures(epoch, {"ab": (day, night), "ba": (night, day)}) == []


# Inversion


def test_inverted_colours_are_said_once_and_again_after_they_were_right(watch):
    said = [look(watch, epoch, lambda x: noise(x) - 0.8 * x) for epoch in range(1, 8)]
    assert [len(words) for words in said] == [0, 0, 1, 0, 0, 0, 0]
    assert "day to night looks inverted" in said[2][0] and "--identity" in said[2][0]
    assert look(watch, 8, lambda x: x) == []
    assert [len(look(watch, epoch, torch.neg)) for epoch in range(9, 12)] == [0, 0, 1]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: 0.3 * x - 0.6,  # darker, less contrast
        lambda x: (1.5 * x + 0.4).clamp(-1, 1),  # brighter, clipped
        lambda x: x.flip(1),  # red for blue
        lambda x: torch.full_like(x, 0.2) + 1e-4 * torch.randn(x.shape),  # flat
        lambda x: scenes(len(x), seed=7),  # another picture
    ],
    ids=["identity", "darker", "brighter", "colours", "flat", "unrelated"],
)
def test_other_changes_are_no_inversion(change):
    assert not are_inverted(scenes(), change(scenes()))


def test_a_dark_sky_over_a_lit_town_is_no_inversion():
    """Large areas against those of the day, details kept: what a good night looks like."""
    sky = torch.linspace(1, -1, 96).view(1, 1, 96, 1)
    detail = 0.2 * scenes() - 0.2 * F.avg_pool2d(scenes(), 9, 1, 4)
    day, night = 0.6 * sky + detail, -0.6 * sky + detail
    assert (correlation(day, night) < -0.5).all()  # large areas alone would cry wolf
    assert not are_inverted(day, night)


def test_gray_and_colour_domains_are_compared():
    colour, gray = scenes(), scenes().mean(1, keepdim=True)
    assert are_inverted(colour, -gray) and are_inverted(gray, -colour)
    assert not are_inverted(colour, gray)


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_registered_maps_and_published_zebras_are_no_inversion():
    for a, b in (("maps/testA", "maps/testB"), ("horse2zebra/testA", "horse2zebra/published_fakeB")):
        found = {path.stem: path for path in sorted((DATA / b).iterdir())}
        pairs = [(path, found[path.stem]) for path in sorted((DATA / a).iterdir()) if path.stem in found][:20]
        x, y = (torch.stack([picture(pair[side]) for pair in pairs]) for side in (0, 1))
        assert len(pairs) == 20 and not are_inverted(x, y) and are_inverted(x, -x)


def picture(path):
    pixels = np.asarray(Image.open(path).convert("RGB").resize((128, 128)), np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)


# The rest


def test_pictures_of_not_a_number_ring_no_alarm_and_do_not_fail(watch):
    for epoch in range(1, 15):
        assert look(watch, epoch, lambda x: x * math.nan) == []


def test_an_alarm_counts_epochs_not_looks():
    alarm = Alarm(patience=3)
    assert [alarm(True, epoch) for epoch in (4, 4, 4, 5, 6, 7)] == [False, False, False, False, True, False]


def test_first_not_finite():
    assert first_not_finite({"cycle/a": 1.0, "cycle/b": 2.0}) is None
    assert first_not_finite({"cycle/a": 1.0, "cycle/b": math.nan, "identity/a": math.inf}) == "cycle/b"


def test_mean_distance_is_the_mean_over_pairs():
    images = torch.tensor([0.0, 0.3, 0.9]).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    assert mean_distance(images) == pytest.approx((0.3 + 0.6 + 0.9) / 3)
    assert mean_distance(images[:1]) == 0
