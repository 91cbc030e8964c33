"""The discriminator on frozen features: what is random in it, what is trained, and its place in the step."""

import functools
from contextlib import nullcontext

import pytest
import torch

from viceversa.device import autocast, compile_parts, why_not_compile
from viceversa.model.cyclegan import Weights, adam, build, step
from viceversa.model.frozen import CHANNELS, Frozen
from viceversa.model.losses import hinge, hinge_generator
from viceversa.model.networks import Generator, PatchDiscriminator
from viceversa.model.projected import WIDTH, Projected, SpectralConv, augment, maps

CROP = 64
WEIGHTS = Weights(identity=2.0, projected=0.8)


def photo_model(discriminator=True, kind="pyramid"):
    spec = Generator(kind=kind, levels=1 if kind == "pyramid" else 0, sees=True, width=4, blocks=1, upsample="nearest")
    patch = (lambda c: PatchDiscriminator(c, 4, 1)) if discriminator else (lambda c: None)
    return build(spec, spec, patch, history=50, crop=CROP, seed=1, ema=0.9, projected=True)


def pair(n, dtype=torch.float32):
    source = torch.Generator().manual_seed(n)
    return torch.rand(2, 1, 3, CROP, CROP, dtype=dtype, generator=source) * 2 - 1


def chances(n):
    source = torch.Generator().manual_seed(100 + n)
    return torch.rand(1, 18, generator=source), torch.rand(1, 18, generator=source)


def train(model, steps, dtype=torch.float32, context=nullcontext):
    optimizers = adam(model, 2e-4)
    return [step(model, *pair(n, dtype), *chances(n), optimizers, WEIGHTS, context) for n in range(steps)]


def test_mixed_maps_keep_size_and_variance():
    judge = Projected(torch.Generator().manual_seed(0))
    levels = [torch.randn(2, channels, 40 // 2**n, 40 // 2**n) for n, channels in enumerate(CHANNELS)]
    for level, mixed in zip(levels, judge.mix(levels), strict=True):
        assert mixed.shape == (2, WIDTH, *level.shape[2:]) and 0.4 < mixed.std() < 1.3
    assert [tuple(s.shape[1:]) for s in judge(judge.mix(levels))] == [(1, 20, 20), (1, 10, 10), (1, 10, 10), (1, 5, 5)]


def test_a_spectral_convolution_learns_its_norm():
    layer = SpectralConv(8, 16, 3, 1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(60):
            layer(torch.zeros(1, 8, 4, 4))
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        x = torch.rand(1, 8, 6, 6)
        expected = torch.nn.functional.conv2d(x, layer.weight / largest, layer.bias, 1, 1)
        torch.testing.assert_close(layer(x), expected, rtol=1e-3, atol=1e-4)


def test_augmentation_follows_its_draws():
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    nothing = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 0.0]]).expand(2, -1)
    y = augment(x, nothing)
    torch.testing.assert_close(y[:, :, :48, :48], x[:, :, :48, :48])  # cut at the corner alone
    assert (y[:, :, 48:, 48:] == 0).all()
    moved = nothing.clone()
    moved[:, 3] = 0.999  # by an eighth
    torch.testing.assert_close(augment(x, moved)[:, :, :40, :40], x[:, :, 8:48, :40])
    draws = torch.rand(2, 8)
    torch.testing.assert_close(augment(x, draws)[1:], augment(x[1:], draws[1:]))


def test_two_batches_are_looked_at_together():
    frozen, (a, b) = Frozen(), pair(0)
    draws = [torch.rand(1, 8), torch.rand(1, 8)]
    together = maps(frozen, (a, b), draws)
    for one, x, u in zip(together, (a, b), draws, strict=True):
        for level, other in zip(one, maps(frozen, (x,), (u,))[0], strict=True):
            torch.testing.assert_close(level, other, rtol=1e-4, atol=1e-4)


def test_hinge_is_the_textbooks():
    real, fake = [torch.tensor([2.0, 0.0])], [torch.tensor([-2.0, 0.5])]
    assert float(hinge(real, fake)) == pytest.approx(0.5 + 0.75)
    assert float(hinge_generator(fake)) == pytest.approx(0.75)


@pytest.mark.parametrize("discriminator", [True, False])
@pytest.mark.parametrize("kind", ["pyramid", "resnet"])
def test_the_step_trains_all_there_is(kind, discriminator):
    model = photo_model(discriminator, kind)
    before = {name: p.clone() for name, p in model.named_parameters() if not name.startswith("average")}
    (losses,) = train(model, 1)
    judges = {"adversarial/ab", "adversarial/ba", "discriminator/a", "discriminator/b"} if discriminator else set()
    assert set(losses) == judges | {
        "cycle/a", "cycle/b", "identity/a", "identity/b", "projected/ab", "projected/ba", "projected/a", "projected/b",
    }  # fmt: skip
    assert all(loss.isfinite() for loss in losses.values())
    still = {n for n, p in before.items() if torch.equal(p, dict(model.named_parameters())[n])}
    assert all("bias" in name for name in still), still  # those before a norm


def test_the_frozen_network_is_not_in_a_checkpoint():
    assert not any("frozen" in name for name in photo_model().state_dict())


def test_compiled_equals_plain_in_float64():
    if reason := why_not_compile(torch.device("cpu")):
        pytest.skip(f"torch.compile does not work here: {reason}")
    plain, compiled = photo_model().double(), photo_model().double()
    compile_parts(compiled.parts())
    for ours, theirs in zip(train(compiled, 2, torch.double), train(plain, 2, torch.double), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["pyramid", "resnet"])
def test_bf16_is_near(kind):
    context = functools.partial(autocast, torch.device("cpu"), torch.bfloat16)
    (exact,), (rough,) = train(photo_model(kind=kind), 1), train(photo_model(kind=kind), 1, context=context)
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.05)
