"""Every measure that makes the step fast leaves its numbers as they are: against the plain step, in float64."""

import functools
from contextlib import nullcontext

import pytest
import torch
from reference import Reference
from test_cyclegan import before_a_norm

from viceversa.device import autocast, compile_parts, why_not_compile
from viceversa.model import cyclegan
from viceversa.model.cyclegan import Optimizers, Weights, adam, build, step
from viceversa.model.networks import Generator, PatchDiscriminator

STEPS = 20
MEASURES = ["none", "merged", "channels-last", "fused", "compiled", "all"]
KINDS = [pytest.param("compiled", marks=pytest.mark.slow) if each == "compiled" else each for each in MEASURES]
"""All of them are tried together in any case."""


def small(crop=32, blocks=1, width=4):
    spec = Generator(width=width, blocks=blocks)
    return build(spec, spec, lambda c: PatchDiscriminator(c, width, 2), history=50, crop=crop, seed=1)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def one_by_one(network, x, y, *seen):
    return network(x), network(y)


def pairs(count, dtype, crop=32):
    source = torch.Generator().manual_seed(5)
    return [torch.rand(2, 1, 3, crop, crop, dtype=dtype, generator=source) * 2 - 1 for _ in range(count)]


@pytest.mark.parametrize("measure", KINDS)
def test_float64_equals_the_plain_step(measure, monkeypatch):
    on = set(MEASURES) if measure == "all" else {measure}
    if "compiled" in on and (reason := why_not_compile(torch.device("cpu"))):
        pytest.skip(f"torch.compile does not work here: {reason}")
    model = small().double()
    reference = Reference(model)
    if "merged" not in on:
        monkeypatch.setattr(cyclegan, "both", one_by_one)
    if "channels-last" in on:
        model = model.to(memory_format=torch.channels_last)
    optimizers = adam(model, 2e-4)
    if "fused" not in on:
        plain = [torch.optim.Adam(o.param_groups[0]["params"], 2e-4, (0.5, 0.999)) for o in optimizers]
        optimizers = Optimizers(*plain)
    if "compiled" in on:
        compile_parts(model.parts())
    for a, b in pairs(STEPS, torch.double):
        draws = torch.zeros(1, 2)
        losses = step(model, a, b, draws, draws, optimizers, Weights(), nullcontext)
        for name, expected in reference.step(a, b).items():
            assert (losses[name] - expected).abs() <= 1e-10 * expected.abs(), name
    for name in ("ab", "ba", "disc_a", "disc_b"):
        ours, theirs = getattr(model, name), dict(getattr(reference, name).named_parameters())
        noisy = before_a_norm(ours)
        for key, weight in ours.named_parameters():
            assert (weight - theirs[key]).abs().max() <= (1e-6 if key in noisy else 1e-12), (name, key)


def test_float32_agrees_in_the_first_two_steps(one_thread):
    """Adam's first update has the size of the learning rate however small a gradient: rounding is what is left of
    some, so the second step already differs by nearly 1e-3, even between two orders of the same sums."""
    model = small(crop=64, blocks=2, width=16)
    reference = Reference(model)  # before: PyTorch's instance norm has a wrong gradient in channels-last
    model = model.to(memory_format=torch.channels_last)
    optimizers = adam(model, 2e-4)
    for (a, b), tolerance in zip(pairs(2, torch.float32, crop=64), (1e-5, 1e-3), strict=True):
        draws = torch.zeros(1, 2)
        losses = step(model, a, b, draws, draws, optimizers, Weights(), nullcontext)
        torch.testing.assert_close(losses, reference.step(a, b), rtol=tolerance, atol=1e-8)


def test_bf16_is_near_and_keeps_losses_and_weights_in_float32():
    model = small()
    reference = Reference(model)
    model = model.to(memory_format=torch.channels_last)
    optimizers = adam(model, 2e-4)
    context = functools.partial(autocast, torch.device("cpu"), torch.bfloat16)
    ((a, b),) = pairs(1, torch.float32)
    losses = step(model, a, b, torch.zeros(1, 2), torch.zeros(1, 2), optimizers, Weights(), context)
    torch.testing.assert_close(losses, reference.step(a, b), rtol=2e-2, atol=1e-8)  # float32, too
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_no_gradient_is_taken_for_a_frozen_discriminator(monkeypatch):
    model, seen = small(), []
    real_update = cyclegan.update

    def update(optimizer, loss):
        sound = real_update(optimizer, loss)
        seen.append([p.grad is None for p in model.disc_a.parameters()])
        return sound

    monkeypatch.setattr(cyclegan, "update", update)
    ((a, b),) = pairs(1, torch.float32)
    step(model, a, b, torch.zeros(1, 2), torch.zeros(1, 2), adam(model, 2e-4), Weights(), nullcontext)
    assert all(seen[0]) and not any(seen[1])
