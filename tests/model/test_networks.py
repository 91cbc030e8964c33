"""The networks agree with the authors' implementation, name for name and number for number."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from viceversa.device import why_not_compile
from viceversa.model.networks import (
    Generator,
    PatchDiscriminator,
    PixelDiscriminator,
    ReflectionPad,
    Residual,
    count,
    initialise,
    smallest_patch,
)

GOLDEN = Path(__file__).parents[1] / "golden"

NETWORKS = {
    "resnet_9blocks": lambda: Generator(width=2, blocks=9).build(),
    "resnet_6blocks": lambda: Generator(width=2, blocks=6).build(),
    "unet_128": lambda: Generator(kind="unet", width=2, halvings=7).build(),
    "unet_256": lambda: Generator(kind="unet", width=2, halvings=8).build(),
    "basic": lambda: PatchDiscriminator(width=2),
    "n_layers_2": lambda: PatchDiscriminator(width=2, layers=2),
    "n_layers_4": lambda: PatchDiscriminator(width=2, layers=4),
    "pixel": lambda: PixelDiscriminator(width=2),
}


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "networks.safetensors")


@pytest.mark.parametrize("name", NETWORKS)
def test_output_equals_the_authors(golden, name):
    weights = {k.removeprefix(f"{name}.weight."): v for k, v in golden.items() if k.startswith(f"{name}.weight.")}
    network = NETWORKS[name]().to(next(iter(weights.values())).dtype)
    network.load_state_dict(weights)  # strict: their names are ours
    with torch.inference_mode():
        output = network(golden[f"{name}.input"])
    tolerance = 1e-4 if name.startswith("unet") else 1e-10
    assert (output - golden[f"{name}.output"]).abs().max() < tolerance


def test_parameter_counts():
    assert count(Generator().build()) == 11_378_179
    assert count(PatchDiscriminator()) == 2_764_737


def test_initialisation_is_normal_with_deviation_002_and_zero_biases():
    network = Generator(width=32).build()
    initialise(network, torch.Generator().manual_seed(0))
    weights = torch.cat([p.flatten() for n, p in network.named_parameters() if n.endswith("weight")])
    assert abs(weights.std() - 0.02) < 1e-4 and abs(weights.mean()) < 1e-4
    assert all((p == 0).all() for n, p in network.named_parameters() if n.endswith("bias"))


@pytest.mark.parametrize(
    "spec",
    [
        Generator(width=4, blocks=1, channels_in=1, channels_out=4),
        Generator(width=4, blocks=1, upsample="nearest"),
        Generator(width=4, blocks=1, antialias=True),
        Generator(width=4, blocks=1, norm="batch"),
        Generator(width=4, blocks=1, norm="instance-affine"),
        Generator(kind="unet", width=4, halvings=5, channels_in=2, channels_out=1),
    ],
)
def test_every_generator_keeps_the_size_and_makes_its_channels(spec):
    x = torch.rand(2, spec.channels_in, 3 * spec.multiple, 2 * spec.multiple) * 2 - 1
    y = spec.build()(x)
    assert y.shape == (2, spec.channels_out, *x.shape[2:]) and y.abs().max() <= 1


def test_checkpointed_activations_give_the_same_gradients():
    network = Generator(width=4, blocks=2).build().double()
    x = torch.rand(1, 3, 16, 16, dtype=torch.double)
    gradients = []
    for network.recompute in (False, True):
        network.zero_grad()
        network(x).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert torch.equal(*gradients)


@pytest.mark.parametrize("kind", [PatchDiscriminator, PixelDiscriminator])
def test_without_norms_a_discriminator_sees_contrast_and_keeps_its_signals(kind):
    x = 100 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for normed, half in ((True, 1.0), (False, 0.5)):
        network = kind(width=16, normed=normed)
        initialise(network, torch.Generator().manual_seed(0))
        scores = network(x)
        torch.testing.assert_close(network(x / 2), half * scores, rtol=0.02, atol=0.02 * scores.std().item())
        assert normed or 0.2 < scores.std() / x.std() < 5


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5])
def test_smallest_patch_is_the_smallest_that_the_discriminator_takes(layers):
    network = PatchDiscriminator(width=2, layers=layers)
    side = smallest_patch(layers)
    assert network(torch.zeros(1, 3, side, side)).numel() >= 1
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 3, side - 1, side - 1))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("n", "height", "width"), [(1, 2, 5), (1, 32, 32), (3, 4, 9)])
def test_the_pad_is_pytorchs(n, height, width, compiled):
    if compiled and (reason := why_not_compile(torch.device("cpu"))):
        pytest.skip(f"torch.compile does not work here: {reason}")
    random, results = torch.Generator().manual_seed(0), []
    x = torch.randn(2, 3, height, width, dtype=torch.double, generator=random)
    out = torch.randn(2, 3, height + 2 * n, width + 2 * n, dtype=torch.double, generator=random)
    ours = ReflectionPad(n)
    if compiled:
        ours.compile(dynamic=False)
    for pad in (ours, torch.nn.ReflectionPad2d(n)):
        y = pad(taken := x.clone().requires_grad_(True))
        y.backward(out)
        results.append((y, taken.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-14, atol=1e-14)


def test_compiled_gradients_of_a_block_in_bf16_are_those_of_the_block():
    """g++ 12 made 1e25 of them at this size, as long as the pad was PyTorch's own."""
    if reason := why_not_compile(torch.device("cpu")):
        pytest.skip(f"torch.compile does not work here: {reason}")
    plain = Residual(128).to(memory_format=torch.channels_last)
    compiled = copy.deepcopy(plain)
    compiled.compile(dynamic=False)
    x = torch.randn(2, 128, 32, 32).to(torch.bfloat16, memory_format=torch.channels_last)
    found = []
    for block in (plain, compiled):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            y = block(taken := x.clone().requires_grad_(True))
        y.backward(x.flip(3))
        found.append([taken.grad, *(p.grad for p in block.parameters() if p.dim() > 1)])
    for true, ours in zip(*found, strict=True):
        assert (ours - true).norm() < 0.05 * true.norm()
