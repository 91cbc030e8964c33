"""CycleGAN: two generators, two discriminators, and the one step that trains them (section 3 and 4)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ..distributed import mean, mean_gradients
from . import projected
from .frozen import Frozen, Seeing
from .history import History
from .losses import hinge, hinge_generator, l1, least_squares
from .networks import Generator, ResnetGenerator, initialise
from .projected import Projected
from .pyramid import PyramidGenerator
from .tint import Tint
from .tone import tone, toned

Seen = tuple[Tensor, ...]
"""What a generator takes besides a batch of pictures: nothing, where it is blind."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What each loss counts, and which adversarial loss it is."""

    cycle: float = 10.0
    identity: float = 5.0
    projected: float = 0.0
    tint: float = 0.0
    adversarial: Callable[[Tensor, bool], Tensor] = least_squares


class Optimizers(NamedTuple):
    """One Adam over both generators, one over both discriminators."""

    generators: torch.optim.Optimizer
    discriminators: torch.optim.Optimizer


class CycleGAN(nn.Module):
    """Generators ab and ba; disc_a and disc_b, named for the domain they judge; a history for each.

    With `ema` > 0 also a moving average of each generator, which is what pictures and model files show.
    `proj_a` and `proj_b` judge beside or instead of disc_a and disc_b; `frozen` is what they judge by, and what
    generators that see are told by. It has no state of its own. disc_a and disc_b judge squares of `patch` pixels.
    `tint_a` and `tint_b` hold the colours of their domain.
    """

    averaged: Tensor

    def __init__(
        self,
        ab: nn.Module,
        ba: nn.Module,
        disc_a: nn.Module | None,
        disc_b: nn.Module | None,
        history_a: History,
        history_b: History,
        ema: float = 0.0,
        proj_a: Projected | None = None,
        proj_b: Projected | None = None,
        frozen: Frozen | None = None,
        patch: int | None = None,
        tint_a: Tint | None = None,
        tint_b: Tint | None = None,
    ):
        super().__init__()
        self.patch = patch
        self.ab, self.ba, self.disc_a, self.disc_b = ab, ba, disc_a, disc_b
        self.history_a, self.history_b = history_a, history_b
        self.proj_a, self.proj_b, self.frozen = proj_a, proj_b, frozen
        self.tint_a, self.tint_b = tint_a, tint_b
        self.ema = ema
        if ema:
            self.average_ab, self.average_ba = (deepcopy(g).requires_grad_(False) for g in (ab, ba))
            self.register_buffer("averaged", torch.zeros(()))

    def generators(self) -> dict[str, nn.Module]:
        """What is shown and saved: the moving averages where there are any."""
        return {"ab": self.average_ab, "ba": self.average_ba} if self.ema else {"ab": self.ab, "ba": self.ba}

    def translators(self) -> dict[str, nn.Module]:
        """The same, ready to take pictures alone: with its eyes, where a generator sees."""
        looks = self.frozen is not None and self.ab.spec.sees  # type: ignore[union-attr]
        return {d: Seeing(g, self.frozen) if looks and self.frozen else g for d, g in self.generators().items()}

    @contextmanager
    def in_use(self) -> Iterator[dict[str, nn.Module]]:
        """The same, as they translate once they are saved. Afterwards they learn on."""
        for generator in self.generators().values():
            generator.eval()
        try:
            yield self.translators()
        finally:
            for generator in self.generators().values():
                generator.train()

    def parts(self) -> Iterator[nn.Module]:
        """What to compile: generators in pieces, where they have any. (The frozen network would be no quicker: 13 ms
        instead of 12 on a CPU, and it is most of the time that compiling takes.)"""
        for generator in (self.ab, self.ba):
            if isinstance(generator, ResnetGenerator | PyramidGenerator):
                yield from generator.parts
            else:
                yield generator
        yield from (d for d in (self.disc_a, self.disc_b) if d is not None)

    def discriminators(self) -> Iterator[nn.Module]:
        """Those there are: the PatchGANs, and those on frozen features."""
        yield from (d for d in (self.disc_a, self.disc_b, self.proj_a, self.proj_b) if d is not None)

    def see(self, x: Tensor, y: Tensor) -> tuple[Seen, Seen]:
        """What is to be seen in two batches of pictures."""
        if self.frozen is None or not self.ab.spec.sees:  # type: ignore[union-attr]
            return (), ()
        seen_x, seen_y = self.frozen.see(x, y)
        return (seen_x,), (seen_y,)

    def square(self, x: Tensor, draws: Tensor) -> Tensor:
        """Of (B, C, H, W) what a PatchGAN judges: a square of each, where (B, 2) draws in [0, 1) say; or all."""
        height, width = x.shape[2:]
        if self.patch is None or self.patch >= min(height, width):
            return x
        image, line = torch.arange(len(x), device=x.device), torch.arange(self.patch, device=x.device)
        top, left = (draws * draws.new_tensor([height - self.patch + 1, width - self.patch + 1])).long().split(1, 1)
        rows, columns = (top + line)[:, :, None], (left + line)[:, None, :]
        return x.permute(0, 2, 3, 1)[image[:, None, None], rows, columns].permute(0, 3, 1, 2)

    @torch.no_grad()
    def update_average(self) -> None:
        """average += (1 - decay) (generator - average). The decay starts low: the last third counts, then less."""
        if not self.ema:
            return
        self.averaged += 1
        rate = 1 - ((1 + self.averaged) / (4 + self.averaged)).clamp(max=self.ema)
        for average, now in ((self.average_ab, self.ab), (self.average_ba, self.ba)):
            for kept, new in zip(average.parameters(), now.parameters(), strict=True):
                kept.lerp_(new, rate.to(new.dtype))

    @property
    def counts_contrast(self) -> bool:
        """Where colours are held, pyramids get, in use, the contrast of the domain that they translate to. Not those of
        one level: the lights and seas of Earth are nearer to the true ones as they are drawn."""
        return self.tint_a is not None and isinstance(self.ab, PyramidGenerator) and self.ab.spec.levels > 1

    @torch.no_grad()
    def update_contrast(self, a: Tensor, b: Tensor) -> None:
        """By what the generators that are shown make of a and b, (B, C, H, W), its light spread as in use (`tone`): a
        moving average draws fainter than what it follows."""
        ab, ba = self.generators().values()
        seen_a, seen_b = self.see(a, b)
        ways = (ab, a, seen_a, self.tint_b, b), (ba, b, seen_b, self.tint_a, a)
        for network, given, seen, tint, real in ways:
            assert tint is not None and isinstance(network, PyramidGenerator)
            fake = network(given, *seen)
            tint.count(toned(fake, *tone(fake, given), torch.ones_like(network.contrast)), real)
            network.contrast.copy_(tint.contrast())


def build(
    ab: Generator, ba: Generator, discriminator: Callable[[int], nn.Module | None], *, history: int, crop: int,
    seed: int, ema: float = 0.0, projected: bool = False, recompute: bool = False, patch: int | None = None,
    tint: bool = False,
) -> CycleGAN:  # fmt: skip
    """A CycleGAN with the paper's random weights, drawn from `seed` (on the CPU, so the same everywhere).

    `discriminator` of the channels gives none where frozen features alone are to judge (`projected`). `patch`: side
    of the square of a crop that it judges; the whole crop, where that is not larger.
    """
    channels_a, channels_b = ab.channels_in, ab.channels_out
    random = torch.Generator().manual_seed(seed)
    networks = ab.build(recompute), ba.build(recompute), discriminator(channels_a), discriminator(channels_b)
    for network in networks:
        if network is not None:
            initialise(network, random)
    kept = history if networks[2] is not None else 0  # of no use to the frozen features
    side = min(patch or crop, crop)
    histories = History(kept, channels_a, side, side), History(kept, channels_b, side, side)
    proj_a, proj_b = (Projected(random), Projected(random)) if projected else (None, None)
    frozen = Frozen() if projected or ab.sees else None
    tint_a, tint_b = (Tint(channels_a), Tint(channels_b)) if tint else (None, None)
    return CycleGAN(
        *networks, *histories, ema=ema, proj_a=proj_a, proj_b=proj_b, frozen=frozen, patch=patch, tint_a=tint_a,
        tint_b=tint_b,
    )  # fmt: skip


def adam(model: CycleGAN, learning_rate: float, capturable: bool = False) -> Optimizers:
    """Adam with betas (0.5, 0.999), fused. With `capturable` the learning rate is a tensor on the device."""
    generators = [*model.ab.parameters(), *model.ba.parameters()]
    discriminators = [p for judge in model.discriminators() for p in judge.parameters()]

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
    model: CycleGAN, a: Tensor, b: Tensor, chance_a: Tensor, chance_b: Tensor,
    optimizers: Optimizers, weights: Weights, autocast: Callable[[], torch.autocast],
) -> dict[str, Tensor]:  # fmt: skip
    """Update both generators, then both discriminators (section 4).

    a, b: (B, C, H, W) in [-1, 1]; chance: (B, 18), uniform in [0, 1): two for the history, then for fakes and for
    reals seven for the augmentation and one for the square that a PatchGAN judges. Returns each loss by its name, a
    scalar on the device: "cycle/a", "adversarial/ab", "discriminator/a" (which judges domain a). Nothing here
    waits for the host, so the whole can be one CUDA graph.
    """
    adversarial, frozen = weights.adversarial, model.frozen
    disc_a, disc_b, proj_a, proj_b = model.disc_a, model.disc_b, model.proj_a, model.proj_b
    train_discriminators(model, False)
    with autocast():
        seen_a, seen_b = model.see(a, b)
        if weights.identity:
            fake_b, same_b = both(model.ab, a, b, seen_a, seen_b)
            fake_a, same_a = both(model.ba, b, a, seen_b, seen_a)
            generator = {
                "identity/a": weights.identity * l1(same_a, a),
                "identity/b": weights.identity * l1(same_b, b),
            }
        else:
            fake_b, fake_a, generator = model.ab(a, *seen_a), model.ba(b, *seen_b), {}
        if disc_a and disc_b:
            place_a, place_b = chance_a[:, 9::8], chance_b[:, 9::8]
            square_a, square_b = model.square(fake_a, place_a), model.square(fake_b, place_b)
            generator["adversarial/ab"] = adversarial(disc_b(square_b), True)
            generator["adversarial/ba"] = adversarial(disc_a(square_a), True)
        if proj_a and proj_b and frozen:
            maps_a, maps_b = projected.maps(frozen, (fake_a, fake_b), (chance_a[:, 2:10], chance_b[:, 2:10]))
            mixed_a, mixed_b = proj_a.mix(maps_a), proj_b.mix(maps_b)
            generator["projected/ab"] = weights.projected * hinge_generator(proj_b(mixed_b))
            generator["projected/ba"] = weights.projected * hinge_generator(proj_a(mixed_a))
        seen_fake_a, seen_fake_b = model.see(fake_a, fake_b)
        generator["cycle/a"] = weights.cycle * l1(model.ba(fake_b, *seen_fake_b), a)
        generator["cycle/b"] = weights.cycle * l1(model.ab(fake_a, *seen_fake_a), b)
        if model.tint_a and model.tint_b:
            generator["tint/a"] = weights.tint * model.tint_a(fake_a, a)
            generator["tint/b"] = weights.tint * model.tint_b(fake_b, b)
    sound = update(optimizers.generators, torch.stack(list(generator.values())).sum())
    model.update_average()

    train_discriminators(model, True)
    discriminator = {}
    with autocast():
        if disc_a and disc_b:
            real_a, shown_a = both(disc_a, model.square(a, place_a), model.history_a(square_a, chance_a))
            real_b, shown_b = both(disc_b, model.square(b, place_b), model.history_b(square_b, chance_b))
            discriminator["discriminator/a"] = (adversarial(real_a, True) + adversarial(shown_a, False)) / 2
            discriminator["discriminator/b"] = (adversarial(real_b, True) + adversarial(shown_b, False)) / 2
        if proj_a and proj_b and frozen:
            with torch.no_grad():
                maps_a, maps_b = projected.maps(frozen, (a, b), (chance_a[:, 10:], chance_b[:, 10:]))
                real_maps_a, real_maps_b = proj_a.mix(maps_a), proj_b.mix(maps_b)
            discriminator["projected/a"] = hinge(*judged(proj_a, real_maps_a, mixed_a))
            discriminator["projected/b"] = hinge(*judged(proj_b, real_maps_b, mixed_b))
    sound = sound & update(optimizers.discriminators, torch.stack(list(discriminator.values())).sum())
    return {name: loss.detach().where(sound, nan) for name, loss in (generator | discriminator).items()}


def both(network: nn.Module, x: Tensor, y: Tensor, seen_x: Seen = (), seen_y: Seen = ()) -> tuple[Tensor, Tensor]:
    """network(x) and network(y) in one batch: norms work image by image, so this changes nothing but speed."""
    seen = (torch.cat(pair) for pair in zip(seen_x, seen_y, strict=True))
    out_x, out_y = network(torch.cat([x, y]), *seen).chunk(2)
    return out_x, out_y


def judged(judge: Projected, real: list[Tensor], fake: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The scores of real and of fake maps, level by level in one batch."""
    scores = [s.chunk(2) for s in judge([torch.cat([r, f.detach()]) for r, f in zip(real, fake, strict=True)])]
    return [real for real, _ in scores], [fake for _, fake in scores]


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """One step of Adam down the gradient of `loss`; none at all where one of them is not a number in any process.

    Returns whether they are numbers, on the device.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    mean_gradients(gradients)
    finite = torch.isfinite(mean(loss.detach())) & torch.isfinite(get_total_norm(gradients))
    if optimizer.param_groups[0]["fused"]:  # as gradient scalers do: Adam looks at it on the device, nothing waits
        optimizer.found_inf = 1 - finite.float()  # type: ignore[attr-defined]
    elif not finite:
        return finite
    optimizer.step()
    return finite


def train_discriminators(model: CycleGAN, on: bool) -> None:
    """While the generators learn, gradients pass through the discriminators but are not taken for them."""
    for judge in model.discriminators():
        judge.requires_grad_(on)
