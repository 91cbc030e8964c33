"""What goes wrong while a CycleGAN trains, found in its losses and pictures and said in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.pictures import luminance

Pairs = Mapping[str, tuple[Tensor, Tensor]]
""""ab" and "ba": inputs and their translations, (N, C, H, W) in [-1, 1]."""


@dataclass
class Alarm:
    """Rings once when something has been so for `patience` epochs on end; again only after it has ended."""

    patience: int
    since: int | None = None
    rung: bool = False

    def __call__(self, wrong: bool, epoch: int) -> bool:
        if not wrong:
            self.since, self.rung = None, False
            return False
        self.since = epoch if self.since is None else self.since
        rings = not self.rung and epoch - self.since + 1 >= self.patience
        self.rung |= rings
        return rings


# What helps from here on comes first; networks and seed cannot change midway, so these are for a new run.
WON = (
    "the discriminator of {target} has won (its loss stays near 0), so the generator learns little from it. "
    "What helps: a smaller --learning-rate, or more images of {target} (--images changed); or a new run with fewer "
    "--discriminator-layers."
)
COLLAPSED = (
    "{source} to {target} has collapsed: different pictures of {source} become nearly the same {target}. "
    "What helps: more images (--images changed), or a larger --cycle; or a new run with fewer --discriminator-layers "
    "or another --seed."
)
INVERTED = (
    "{source} to {target} looks inverted: bright becomes dark and dark bright. Unless the two domains differ "
    "in just this, begin a new run with another --seed; --identity 5 or more keeps it from happening."
)


class Watch:
    """Looks at the losses of every epoch and at the pictures that are shown; a sentence for each thing that goes wrong.

    A sentence says what is seen and what usually helps, once an episode. What young generators make is
    alike, flat or inverted for a while, so a thing has to last for some epochs before it is worth a word.
    """

    def __init__(self, names: tuple[str, str]):
        self.names = dict(zip("ab", names, strict=True))
        self.won = {direction: Alarm(patience=5) for direction in ("ab", "ba")}
        self.collapsed = {direction: Alarm(patience=10) for direction in ("ab", "ba")}
        self.inverted = {direction: Alarm(patience=3) for direction in ("ab", "ba")}

    def losses(self, epoch: int, means: Mapping[str, float]) -> list[str]:
        """From the mean losses of an epoch, by their keys ("cycle/a")."""
        said = []
        for direction, alarm in self.won.items():
            judge = means.get(f"discriminator/{direction[1]}")  # none, where frozen features alone judge
            if judge is not None and alarm(has_won(judge, means[f"adversarial/{direction}"]), epoch):
                said.append(self.sentence(WON, direction))
        return said

    def pictures(self, epoch: int, pairs: Pairs) -> list[str]:
        """From the translations of the test pictures after an epoch."""
        said = []
        for direction, (inputs, outputs) in pairs.items():
            reals = pairs[direction[::-1]][0]
            alike = are_alike(inputs, outputs, reals)
            if self.collapsed[direction](alike, epoch):
                said.append(self.sentence(COLLAPSED, direction))
            if not alike:  # what could tell pictures apart once gets no long benefit of the doubt
                self.collapsed[direction].patience = 2
            if self.inverted[direction](are_inverted(inputs, outputs), epoch):
                said.append(self.sentence(INVERTED, direction))
        return said

    def sentence(self, form: str, direction: str) -> str:
        source, target = (self.names[domain] for domain in direction)
        return form.format(source=source, target=target)


def has_won(discriminator: float, adversarial: float) -> bool:
    """A judge that errs no more, while the generator never fools it.

    Holds for both adversarial losses: with least squares a judge that can only guess has 0.25 and a
    generator that is never believed 1; with log-likelihood 0.69, and more than 1.
    """
    return discriminator < 0.02 and adversarial > 0.85


def are_alike(inputs: Tensor, outputs: Tensor, reals: Tensor) -> bool:
    """Do the outputs differ less than a tenth of what inputs and real images of the target domain both do?"""
    natural = min(mean_distance(inputs), mean_distance(reals))
    return mean_distance(outputs) < 0.1 * natural


def mean_distance(images: Tensor) -> float:
    """Mean root-mean-square difference between any two of (N, C, H, W); 0 for fewer than two."""
    flat = small(images).flatten(1)
    return float(torch.pdist(flat).mean()) / math.sqrt(flat.shape[1]) if len(flat) > 1 else 0.0


def are_inverted(inputs: Tensor, outputs: Tensor) -> bool:
    """Is light and shade reversed in most pictures, at large (sky, ground) and in the details?

    Details are asked too because the large areas of a good night may well run against those of the day:
    real photos of one camera, dark sky over lit streets, were seen at a correlation of -0.47.
    """
    x, y = small(luminance(inputs)), small(luminance(outputs))
    both = torch.maximum(correlation(x, y), correlation(x - blur(x), y - blur(y)))
    return bool((both < -0.4).float().mean() > 0.5)


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's, of each image: (N, C, H, W) twice -> (N,); 0 where either is flat (under one in 255)."""
    x, y = (v.flatten(1) - v.flatten(1).mean(1, keepdim=True) for v in (x, y))
    spread_x, spread_y = x.square().mean(1).sqrt(), y.square().mean(1).sqrt()
    flat = (spread_x < 2 / 255) | (spread_y < 2 / 255)
    return torch.where(flat, 0.0, (x * y).mean(1) / (spread_x * spread_y).clamp(min=1e-12))


def small(images: Tensor) -> Tensor:
    """At most 64 pixels a side, by averaging: what noise and texture do is not looked at."""
    height, width = images.shape[2:]
    return F.adaptive_avg_pool2d(images.float(), (min(height, 64), min(width, 64)))


def blur(images: Tensor) -> Tensor:
    """Mean over 9x9 pixels, same size."""
    return F.avg_pool2d(images, 9, stride=1, padding=4, count_include_pad=False)


def first_not_finite(losses: Mapping[str, float]) -> str | None:
    """The key of the first loss that is infinite or not a number, if there is one."""
    return next((key for key, value in losses.items() if not math.isfinite(value)), None)
