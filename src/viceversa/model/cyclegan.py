"""CycleGAN: two generators, two discriminators, and the one step that trains them (section 3 and 4)."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..distributed import mean_gradients
from .history import History
from .losses import l1, least_squares
from .networks import Generator, ResnetGenerator, initialise


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What each loss counts, and which adversarial loss it is."""

    cycle: float = 10.0
    identity: float = 5.0
    adversarial: Callable[[Tensor, bool], Tensor] = least_squares


@dataclass(frozen=True)
class Optimizers:
    """One Adam over both generators, one over both discriminators."""

    generators: torch.optim.Optimizer
    discriminators: torch.optim.Optimizer

    def __iter__(self) -> Iterator[torch.optim.Optimizer]:
        return iter((self.generators, self.discriminators))


class CycleGAN(nn.Module):
    """Generators ab and ba; disc_a and disc_b, named for the domain they judge; a history for each.

    With `ema` > 0 also a moving average of each generator, which is what pictures and model files show.
    """

    averaged: Tensor

    def __init__(
        self,
        ab: nn.Module,
        ba: nn.Module,
        disc_a: nn.Module,
        disc_b: nn.Module,
        history_a: History,
        history_b: History,
        ema: float = 0.0,
    ):
        super().__init__()
        self.ab, self.ba, self.disc_a, self.disc_b = ab, ba, disc_a, disc_b
        self.history_a, self.history_b = history_a, history_b
        self.ema = ema
        if ema:
            self.average_ab, self.average_ba = (
                deepcopy(ab).requires_grad_(False),
                deepcopy(ba).requires_grad_(False),
            )
            self.register_buffer("averaged", torch.zeros(()))

    def generators(self) -> dict[str, nn.Module]:
        """What is shown and saved: the moving averages where there are any."""
        return {"ab": self.average_ab, "ba": self.average_ba} if self.ema else {"ab": self.ab, "ba": self.ba}

    def parts(self) -> Iterator[nn.Module]:
        """What to compile: a generator in pieces, so that its equal blocks are compiled once."""
        for generator in (self.ab, self.ba):
            if isinstance(generator, ResnetGenerator):
                encoder, blocks, decoder = generator.parts
                yield from (encoder, *blocks.children(), decoder)
            else:
                yield generator
        yield from (self.disc_a, self.disc_b)

    @torch.no_grad()
    def update_average(self) -> None:
        """average += (1 - decay) (generator - average); the decay starts low, so that the start is forgotten."""
        if not self.ema:
            return
        self.averaged += 1
        rate = 1 - ((1 + self.averaged) / (10 + self.averaged)).clamp(max=self.ema)
        for average, now in ((self.average_ab, self.ab), (self.average_ba, self.ba)):
            for kept, new in zip(average.parameters(), now.parameters(), strict=True):
                kept.lerp_(new, rate.to(new.dtype))


def build(
    ab: Generator, ba: Generator, discriminator: Callable[[int], nn.Module], *, history: int, crop: int,
    seed: int, ema: float = 0.0,
) -> CycleGAN:  # fmt: skip
    """A CycleGAN with the paper's random weights, drawn from `seed` (on the CPU, so the same everywhere)."""
    channels_a, channels_b = ab.channels_in, ab.channels_out
    random = torch.Generator().manual_seed(seed)
    networks = ab.build(), ba.build(), discriminator(channels_a), discriminator(channels_b)
    for network in networks:
        initialise(network, random)
    return CycleGAN(
        *networks, History(history, channels_a, crop, crop), History(history, channels_b, crop, crop), ema=ema
    )


def adam(model: CycleGAN, learning_rate: float, capturable: bool = False) -> Optimizers:
    """Adam with betas (0.5, 0.999), fused. With `capturable` the learning rate is a tensor on the device."""
    generators = [*model.ab.parameters(), *model.ba.parameters()]
    discriminators = [*model.disc_a.parameters(), *model.disc_b.parameters()]

    def make(parameters: list[nn.Parameter]) -> torch.optim.Adam:
        device = parameters[0].device
        rate = torch.tensor(learning_rate, device=device) if capturable else learning_rate
        fused = device.type in ("cpu", "cuda")
        return torch.optim.Adam(parameters, rate, (0.5, 0.999), fused=fused, capturable=capturable)

    return Optimizers(make(generators), make(discriminators))


def set_learning_rate(optimizers: Optimizers, rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def step(
    model: CycleGAN, a: Tensor, b: Tensor, draws_a: Tensor, draws_b: Tensor,
    optimizers: Optimizers, weights: Weights, autocast: Callable[[], torch.autocast],
) -> dict[str, Tensor]:  # fmt: skip
    """Update both generators, then both discriminators (section 4).

    a, b: (B, C, H, W) in [-1, 1]; draws: (B, 2) uniform, for the histories. Returns each loss by its name, a
    scalar on the device: "cycle/a", "adversarial/ab", "discriminator/a" (which judges domain a). Nothing here
    waits for the host, so the whole can be one CUDA graph.
    """
    adversarial = weights.adversarial
    frozen(model, True)
    with autocast():
        if weights.identity:
            fake_b, same_b = both(model.ab, a, b)
            fake_a, same_a = both(model.ba, b, a)
            identity = {
                "identity/a": weights.identity * l1(same_a, a),
                "identity/b": weights.identity * l1(same_b, b),
            }
        else:
            fake_b, fake_a, identity = model.ab(a), model.ba(b), {}
        generator = identity | {
            "adversarial/ab": adversarial(model.disc_b(fake_b), True),
            "adversarial/ba": adversarial(model.disc_a(fake_a), True),
            "cycle/a": weights.cycle * l1(model.ba(fake_b), a),
            "cycle/b": weights.cycle * l1(model.ab(fake_a), b),
        }
    update(optimizers.generators, torch.stack(list(generator.values())).sum())
    model.update_average()

    frozen(model, False)
    with autocast():
        real_a, shown_a = both(model.disc_a, a, model.history_a(fake_a, draws_a))
        real_b, shown_b = both(model.disc_b, b, model.history_b(fake_b, draws_b))
        discriminator = {
            "discriminator/a": (adversarial(real_a, True) + adversarial(shown_a, False)) / 2,
            "discriminator/b": (adversarial(real_b, True) + adversarial(shown_b, False)) / 2,
        }
    update(optimizers.discriminators, discriminator["discriminator/a"] + discriminator["discriminator/b"])

    return {name: loss.detach() for name, loss in (generator | discriminator).items()}


def both(network: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """network(x) and network(y) in one batch: norms work image by image, so this changes nothing but speed."""
    out_x, out_y = network(torch.cat([x, y])).chunk(2)
    return out_x, out_y


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    mean_gradients(optimizer)
    optimizer.step()


def frozen(model: CycleGAN, freeze: bool) -> None:
    """While the generators learn, gradients pass through the discriminators but are not taken for them."""
    model.disc_a.requires_grad_(not freeze)
    model.disc_b.requires_grad_(not freeze)
