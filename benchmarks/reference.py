"""The step as the recipe says it, plainly: eager, float32, one forward a call, nothing merged.

It uses PyTorch's own layers (instance norm, in-place ReLU, Adam with its defaults), as the authors'
implementation does, and is what our step is compared with, in numbers (tests) and in time (benchmarks).
"""

import random
from copy import deepcopy

import torch
from torch import nn

from viceversa.model.cyclegan import CycleGAN
from viceversa.model.networks import InstanceNorm


def plain(network: nn.Module) -> nn.Module:
    """The same network with PyTorch's own layers, in place where the authors work in place."""
    network = deepcopy(network)
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, InstanceNorm):
                setattr(parent, name, nn.InstanceNorm2d(layer.channels))
            elif isinstance(layer, nn.ReLU | nn.LeakyReLU):
                layer.inplace = True
    return network


class Pool:
    """The history of 50 fakes, with Python's random numbers."""

    def __init__(self, size: int = 50):
        self.size, self.images = size, []

    def query(self, images: torch.Tensor) -> torch.Tensor:
        shown = []
        for image in images.detach().split(1):
            if len(self.images) < self.size:
                self.images.append(image)
                shown.append(image)
            elif random.random() > 0.5:
                place = random.randrange(self.size)
                shown.append(self.images[place].clone())
                self.images[place] = image
            else:
                shown.append(image)
        return torch.cat(shown)


class Reference:
    """Networks copied from a CycleGAN, plain layers, plain Adam; `step(a, b)` returns the eight losses by name."""

    def __init__(self, model: CycleGAN, learning_rate: float = 2e-4, cycle: float = 10.0, identity: float = 5.0):
        self.ab, self.ba = plain(model.ab), plain(model.ba)
        self.disc_a, self.disc_b = plain(model.disc_a), plain(model.disc_b)
        self.cycle, self.identity = cycle, identity
        self.pool_a, self.pool_b = Pool(), Pool()
        generators = [*self.ab.parameters(), *self.ba.parameters()]
        discriminators = [*self.disc_a.parameters(), *self.disc_b.parameters()]
        self.adam_g = torch.optim.Adam(generators, learning_rate, (0.5, 0.999))
        self.adam_d = torch.optim.Adam(discriminators, learning_rate, (0.5, 0.999))
        self.l1, self.mse = nn.L1Loss(), nn.MSELoss()

    def judged(self, scores: torch.Tensor, real: bool) -> torch.Tensor:
        return self.mse(scores, torch.full_like(scores, float(real)))

    def step(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        fake_b = self.ab(a)
        rec_a = self.ba(fake_b)
        fake_a = self.ba(b)
        rec_b = self.ab(fake_a)

        for p in [*self.disc_a.parameters(), *self.disc_b.parameters()]:
            p.requires_grad = False
        self.adam_g.zero_grad()
        identity_b = self.l1(self.ab(b), b) * self.identity
        identity_a = self.l1(self.ba(a), a) * self.identity
        adversarial_ab = self.judged(self.disc_b(fake_b), True)
        adversarial_ba = self.judged(self.disc_a(fake_a), True)
        cycle_a = self.l1(rec_a, a) * self.cycle
        cycle_b = self.l1(rec_b, b) * self.cycle
        (adversarial_ab + adversarial_ba + cycle_a + cycle_b + identity_a + identity_b).backward()
        self.adam_g.step()

        for p in [*self.disc_a.parameters(), *self.disc_b.parameters()]:
            p.requires_grad = True
        self.adam_d.zero_grad()
        losses_d = []
        for disc, pool, real, fake in (
            (self.disc_a, self.pool_a, a, fake_a),
            (self.disc_b, self.pool_b, b, fake_b),
        ):
            loss = (self.judged(disc(real), True) + self.judged(disc(pool.query(fake)), False)) * 0.5
            loss.backward()
            losses_d.append(loss)
        self.adam_d.step()
        losses = {
            "adversarial/ab": adversarial_ab, "adversarial/ba": adversarial_ba, "cycle/a": cycle_a, "cycle/b": cycle_b,
            "identity/a": identity_a, "identity/b": identity_b,
            "discriminator/a": losses_d[0], "discriminator/b": losses_d[1],
        }  # fmt: skip
        return {name: loss.detach() for name, loss in losses.items()}
