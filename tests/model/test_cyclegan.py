"""The step agrees with the authors' implementation, loss for loss and weight for weight."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from viceversa.model.cyclegan import CycleGAN, Weights, adam, build, step
from viceversa.model.history import History
from viceversa.model.losses import least_squares, log_likelihood
from viceversa.model.networks import Generator, InstanceNorm, PatchDiscriminator
from viceversa.model.tone import tone, toned

GOLDEN = Path(__file__).parents[1] / "golden"
AUTHORS = {  # their names: D_A judges domain B, idt_A is G_A(B) against B
    "adversarial/ab": "G_A", "adversarial/ba": "G_B", "cycle/a": "cycle_A", "cycle/b": "cycle_B",
    "identity/a": "idt_B", "identity/b": "idt_A", "discriminator/a": "D_B", "discriminator/b": "D_A",
}  # fmt: skip
NETWORKS = {"ab": "G_A", "ba": "G_B", "disc_b": "D_A", "disc_a": "D_B"}
VARIANTS = {
    "steps_lsgan": Weights(),
    "steps_lsgan_no_identity": Weights(identity=0.0),
    "steps_vanilla": Weights(adversarial=log_likelihood),
    "steps_lsgan_batch2": Weights(adversarial=least_squares),
}


def before_a_norm(network):
    """Names of the biases that an instance norm follows: their true gradient is zero (rounding noise)."""
    names, last = set(), ""
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            last = name
        elif isinstance(layer, InstanceNorm):
            names.add(f"{last}.bias")
    return names


def golden_model(golden):
    spec = Generator(width=2, blocks=9)
    networks = [spec.build(), spec.build(), PatchDiscriminator(width=2), PatchDiscriminator(width=2)]
    model = CycleGAN(*networks, History(0, 3, 32, 32), History(0, 3, 32, 32)).double()
    for ours, theirs in NETWORKS.items():
        prefix = f"init.{theirs}."
        weights = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
        getattr(model, ours).load_state_dict(weights)
    return model


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_training_equals_the_authors(variant, channels_last):
    golden = load_file(GOLDEN / f"{variant}.safetensors")
    model = golden_model(golden)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizers = adam(model, 2e-4)
    draws = torch.zeros(2, 2)
    for i in range(len(golden["loss.G_A"])):
        a, b = golden[f"input.A.{i}"], golden[f"input.B.{i}"]
        losses = step(model, a, b, draws, draws, optimizers, VARIANTS[variant], nullcontext)
        assert set(losses) == set(AUTHORS) - ({"identity/a", "identity/b"} if "no_identity" in variant else set())
        for name, loss in losses.items():
            expected = golden[f"loss.{AUTHORS[name]}"][i]
            assert abs(loss - expected) <= 1e-10 * abs(expected), (name, i)
    for ours, theirs in NETWORKS.items():
        network = getattr(model, ours)
        noisy = before_a_norm(network)
        assert noisy
        for name, weight in network.named_parameters():
            difference = (weight - golden[f"final.{theirs}.{name}"]).abs().max()
            assert difference <= (1e-6 if name in noisy else 1e-12), (ours, name)


def test_moving_average_follows_the_generators():
    spec = Generator(width=2, blocks=1)
    parts = [spec.build(), spec.build(), PatchDiscriminator(width=2), PatchDiscriminator(width=2)]
    model = CycleGAN(*parts, History(0, 3, 32, 32), History(0, 3, 32, 32), ema=0.9)
    average, now = next(model.average_ab.parameters()), next(model.ab.parameters())
    start = average.clone()
    with torch.no_grad():
        now.add_(1.0)
    model.update_average()
    assert torch.allclose(average - start, torch.full_like(start, 1 - 2 / 5))  # the decay starts low
    for _ in range(200):
        model.update_average()
    assert torch.allclose(average, now, atol=1e-5)
    assert model.generators()["ab"] is model.average_ab


def test_contrast_is_counted_of_what_the_shown_generators_make():
    """Of what the moving average makes, not of what it follows, and without the factor itself."""
    spec = Generator(width=2, blocks=1, kind="pyramid", levels=2)
    model = build(spec, spec, lambda c: None, history=0, crop=32, seed=0, ema=0.9, projected=True, tint=True)
    a, b = torch.rand(2, 4, 3, 32, 32) * 2 - 1
    torch.nn.init.zeros_(model.ab.small.model[-1].weight)  # gray, if it were asked
    for _ in range(3):
        model.update_contrast(a, b)
    for network, x, real in ((model.average_ab, a, b), (model.average_ba, b, a)):
        made = network(x).detach()
        made = toned(made, *tone(made, x), torch.ones(()))
        light = [y.mean(1).std(correction=0) for y in (real, made)]
        torch.testing.assert_close(network.contrast, (light[0] / light[1]).clamp(1, 2), rtol=1e-3, atol=0)
        assert 1 < network.contrast < 2 and model.ab.contrast == model.ba.contrast == 1


@pytest.mark.parametrize("fused", [True, False])
def test_a_loss_that_is_no_number_changes_nothing(fused):
    """Not a weight, not a moment: fused Adam looks at it on the device; elsewhere (Apple) the host does."""
    spec = Generator(width=2, blocks=1)
    model = build(spec, spec, lambda c: PatchDiscriminator(c, 2, 2), history=0, crop=16, seed=0)
    optimizers = adam(model, 2e-4)
    if not fused:
        for optimizer in optimizers:
            optimizer.param_groups[0]["fused"] = False
    good, chance = torch.rand(2, 1, 3, 16, 16), torch.zeros(2, 1, 2)
    step(model, *good, *chance, optimizers, Weights(), nullcontext)
    states = [optimizer.state[p] for optimizer in optimizers for p in optimizer.param_groups[0]["params"]]

    def held():
        return [value.clone() for state in (model.state_dict(), *states) for value in state.values()]

    before = held()
    losses = step(model, good[0] * torch.nan, good[1], *chance, optimizers, Weights(), nullcontext)
    assert losses["cycle/a"].isnan()
    assert all(map(torch.equal, before, held()))
    step(model, *good, *chance, optimizers, Weights(), nullcontext)
    after = held()
    assert all(value.isfinite().all() for value in after) and not all(map(torch.equal, before, after))


def test_a_gradient_that_is_no_number_changes_nothing():
    """Though every loss is one: a compiler's or a chip's fault."""
    spec = Generator(width=2, blocks=1)
    model = build(spec, spec, lambda c: PatchDiscriminator(c, 2, 2), history=0, crop=16, seed=0)
    optimizers = adam(model, 2e-4)
    before = [p.clone() for p in model.ab.parameters()]
    model.ab.model[-2].weight.register_hook(lambda gradient: gradient * torch.nan)
    losses = step(model, *torch.rand(2, 1, 3, 16, 16), *torch.zeros(2, 1, 2), optimizers, Weights(), nullcontext)
    assert all(loss.isnan() for loss in losses.values())
    assert all(map(torch.equal, before, model.ab.parameters()))
