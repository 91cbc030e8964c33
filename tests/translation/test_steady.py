"""Less flicker on what stands still; nothing lost of what moves, fades or is cut."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from viceversa.data.pictures import to_tensor
from viceversa.model import networks
from viceversa.model.file import Model
from viceversa.translation.films import translate_film
from viceversa.translation.steady import LENGTH, Average, Steady, add, noise, start
from viceversa.translation.translator import FilmNetwork, Translator

SIZE = 128
Network = Callable[[Tensor], Tensor]


def photo(seed: int, width: int = SIZE) -> Tensor:
    """(1, 3, SIZE, width): like a photograph, a spectrum of 1/f, a smooth sky, and a flat wall with hard edges."""
    draw = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    waves = draw.normal(size=(4, *frequency.shape)) + 1j * draw.normal(size=(4, *frequency.shape))
    gray, *colours = np.fft.irfft2(waves / frequency, (SIZE, width))
    image = torch.tensor(np.stack([gray + 0.3 * colour for colour in colours])[None]).float()
    image = (0.35 * image / image.std()).clamp(-1, 1)
    image[:, :, : SIZE // 4] = torch.linspace(0.3, 0.5, SIZE // 4)[:, None]
    image[:, :, SIZE // 2 : SIZE // 2 + 24, 16:60] = torch.tensor([-0.7, 0.2, 0.6])[:, None, None]
    return image


def noisy(frames: list[Tensor], levels: float) -> list[Tensor]:
    """With the noise of a sensor (standard deviation in levels of 255), and rounded to levels."""
    draw = torch.Generator().manual_seed(1)
    exposed = [(x + 1) * 127.5 + torch.randn(x.shape, generator=draw) * levels for x in frames]
    return [x.clamp(0, 255).round() / 127.5 - 1 for x in exposed]


def gan() -> Network:
    """A small generator of the paper's, at its random start: instance norm makes the noise several times larger."""
    network = networks.Generator(width=8, blocks=1).build().eval()
    networks.initialise(network, torch.Generator().manual_seed(0))
    return network


def sharpen(x: Tensor) -> Tensor:
    return (x + 1.5 * (x - F.avg_pool2d(F.pad(x, (2, 2, 2, 2), "replicate"), 5, 1))).clamp(-1, 1)


NETWORKS = [pytest.param(gan(), id="gan"), pytest.param(sharpen, id="sharpen"), pytest.param(lambda x: x, id="nothing")]


@torch.inference_mode()
def both(frames: list[Tensor], network: Network) -> tuple[Tensor, Tensor]:
    """Translated frame by frame, and steadied: (N, C, H, W) each."""
    steady = Steady()
    shown = []
    for frame in frames:
        calm, still = steady.before(frame)
        shown.append(steady.after(network(calm), still))
    return torch.cat([network(frame) for frame in frames]), torch.cat(shown)


def flicker(frames: Tensor) -> float:
    """Mean absolute difference of consecutive frames, in levels of 255."""
    return float((frames[1:] - frames[:-1]).abs().mean() * 127.5)


def sharpness(frames: Tensor) -> Tensor:
    """Variance of the Laplacian of each frame, (N,)."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return F.conv2d(frames.mean(1, keepdim=True), kernel).var(dim=(1, 2, 3))


def levels(difference: Tensor) -> float:
    return float(difference.abs().max() * 127.5)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("sensor", [1, 4, 10])
def test_a_still_scene_flickers_a_fifth_at_most(network: Network, sensor: float) -> None:
    plain, steady = both(noisy([photo(0)] * 10, sensor), network)
    assert flicker(steady) < 0.2 * flicker(plain)
    assert flicker(steady[:3]) < 0.5 * flicker(plain[:3]), "from the start"


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("sensor", [0, 4])
def test_the_first_frame_after_a_cut_is_as_without(network: Network, sensor: float) -> None:
    plain, steady = both(noisy([photo(0)] * 6 + [photo(1)] * 6, sensor), network)
    assert levels(plain[6] - steady[6]) < 1
    assert flicker(steady[6:]) <= 0.3 * flicker(plain[6:]) + 1e-3


@pytest.mark.parametrize("sensor", [0, 3])
def test_a_cut_between_dark_scenes_is_seen(sensor: float) -> None:
    dark = [(photo(seed) + 1) * 0.15 - 1 for seed in (0, 1)]
    plain, steady = both(noisy([dark[0]] * 5 + [dark[1]] * 2, sensor), gan())
    assert levels(plain[5] - steady[5]) < 1


def moving(speed: int, frames: int = 12) -> list[Tensor]:
    """A bright box before a still scene, so many pixels further each frame."""
    scene = []
    for index in range(frames):
        image = photo(0)
        image[:, :, 40:90, 8 + speed * index : 48 + speed * index] = torch.tensor([0.9, 0.8, -0.2])[:, None, None]
        scene.append(image)
    return scene


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("speed", [1, 3, 6])
def test_a_moving_edge_leaves_no_ghost(network: Network, speed: int) -> None:
    clean = moving(speed)
    plain, steady = both(clean, network)
    assert ((sharpness(steady) / sharpness(plain) - 1).abs() < 0.05).all()
    truth = plain[4:]
    plain, steady = both(noisy(clean, 2), network)
    assert (sharpness(steady[4:]) / sharpness(truth) - 1).abs().max() < 0.05
    assert (steady[4:] - truth).abs().mean() < 0.8 * (plain[4:] - truth).abs().mean(), "nearer to the truth"
    assert (steady[4:] - truth).abs().quantile(0.999) < 1.1 * (plain[4:] - truth).abs().quantile(0.999)


def shifted(image: Tensor, pixels: float) -> Tensor:
    """A window of SIZE x SIZE, so far to the right, between pixels too."""
    width = image.shape[3]
    grid = F.affine_grid(
        torch.tensor([[[SIZE / width, 0, SIZE / width - 1 + 2 * pixels / width], [0.0, 1, 0]]]), [1, 3, SIZE, SIZE],
        align_corners=False,
    )  # fmt: skip
    return F.grid_sample(image, grid, "bicubic", align_corners=False).clamp(-1, 1)


@pytest.mark.parametrize("speed", [0.1, 0.5, 1, 4])
@pytest.mark.parametrize("sensor", [0, 3])
def test_a_pan_does_not_smear(speed: float, sensor: float) -> None:
    wide = photo(3, SIZE + 48)
    frames = noisy([shifted(wide, speed * index) for index in range(10)], sensor)
    plain, steady = both(frames, sharpen)
    assert ((sharpness(steady) / sharpness(plain) - 1).abs() < 0.02).all()


@pytest.mark.parametrize("frames", [12, 60, 150])
@pytest.mark.parametrize("sensor", [0, 3])
def test_a_fade_does_not_lag(frames: int, sensor: float) -> None:
    fade = [(photo(0) + 1) * (1 - 0.7 * index / (frames - 1)) - 1 for index in range(frames)]
    plain, steady = both(noisy(fade, sensor), lambda x: x)
    lag = (steady - plain).mean((1, 2, 3)).abs().max() * 127.5
    assert lag < 1.5


def test_an_average_is_the_mean_until_it_reaches_back_far_enough() -> None:
    frames = torch.rand(int(LENGTH), 1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    average = start(frames[0])
    for frame in frames[1:]:
        average = add(average, frame, torch.ones(1, 1, 4, 5))
    assert torch.allclose(average.mean, frames.mean(0)) and (average.count == LENGTH).all()
    forgotten = add(Average(average.mean, average.count), frames[0], torch.zeros(1, 1, 4, 5))
    assert torch.equal(forgotten.mean, frames[0]) and (forgotten.count == 1).all()


@pytest.mark.parametrize("sensor", [1, 5, 15])
def test_noise_is_measured(sensor: float) -> None:
    one, other = noisy([photo(0)] * 2, sensor)
    assert float(noise(one - other).sqrt() * 127.5) == pytest.approx(sensor * 2**0.5, rel=0.1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (17, 3), (33, 47), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_and_gray(height: int, width: int, channels: int) -> None:
    draw = torch.Generator().manual_seed(0)
    frames = [torch.rand(1, channels, height, width, generator=draw) * 0.01 for _ in range(5)]
    plain, steady = both(frames, lambda x: x)
    assert steady.shape == plain.shape and steady.isfinite().all() and levels(steady - plain) < 2.6


def test_by_way_of_a_file(tmp_path: Path) -> None:
    """The same, as a person meets it: a film in, two films out."""
    from test_films import shown, write_film

    generator = networks.Generator(width=8, blocks=1).build()
    networks.initialise(generator, torch.Generator().manual_seed(0))
    translator = Translator(Model({"ab": generator}, ("day", "night"), {}), device="cpu")
    scenes = noisy([photo(0)] * 8 + [photo(1)] * 4, 4)
    pixels = [((x[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy() for x in scenes]
    write_film(tmp_path / "in.mkv", pixels)
    made = []
    for steady in (False, True):
        translate_film(translator, tmp_path / "in.mkv", tmp_path / "out.mkv", codec="ffv1", steady=steady)
        made.append(np.stack(shown(tmp_path / "out.mkv")[0]).astype(float))
    plain, steadied = made
    assert np.abs(np.diff(steadied[:8], axis=0)).mean() < 0.2 * np.abs(np.diff(plain[:8], axis=0)).mean()
    assert np.abs(plain[8] - steadied[8]).max() <= 1


def city(name: str) -> Tensor:
    """A photograph that ships: a frozen network takes made-up ones for one as good as another."""
    with Image.open(files("viceversa") / "assets" / f"{name}.jpg") as image:
        return to_tensor(np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)))


def test_what_is_seen_and_norms_do_not_flicker() -> None:
    """Of a generator that sees: what comes and goes changes less of all else; after a cut all is new."""
    spec = networks.Generator(kind="pyramid", levels=1, width=4, blocks=1, upsample="nearest", sees=True)
    generator = spec.build().eval()
    networks.initialise(generator, torch.Generator().manual_seed(0))
    for weight in generator.parameters():
        weight.data *= 4
    translator = Translator(Model({"ab": generator}, ("day", "night"), {}), device="cpu", precision="fp32")
    draw = torch.Generator().manual_seed(1)
    scenes = [city("china") for _ in range(8)] + [city("building")]
    for scene in scenes[:8]:
        scene[:, :, :, 128 - int(48 * torch.rand((), generator=draw)) :] = 1.0
    frames = [np.asarray(((x[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()) for x in scenes]
    network = translator.network("ab", torch.float32)
    film = FilmNetwork(network)
    tensors = [to_tensor(frame) for frame in frames]
    alone = torch.cat([network(x) for x in tensors])
    over_time = torch.cat([film(x) for x in tensors])
    assert flicker(over_time[:8, :, :, :64]) < 0.6 * flicker(alone[:8, :, :, :64]), "far from what comes and goes"
    assert levels(over_time[0] - alone[0]) < 1e-3, "the first frame is as without"
    assert levels(over_time[8] - alone[8]) < 1e-3, "and the first after a cut"
    once = translator.frames("night")
    assert np.abs(once(frames[0]).astype(int) - translator(frames[0], "night")).max() <= 1
    calm = [once(frame) for frame in frames[1:]]
    assert np.abs(calm[7].astype(int) - translator(frames[8], "night")).max() <= 1
    weights = zip(film.network.parameters(), network.network.parameters(), strict=True)
    assert all(one is other for one, other in weights)
