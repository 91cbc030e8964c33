"""LPIPS, PSNR, SSIM and the structure term, against documented values, formulas and slow loops."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from viceversa.errors import BadInput
from viceversa.evaluation.features import Lpips, SqueezeNet, load_features, load_lpips
from viceversa.evaluation.scores import psnr, ssim, structure

WEIGHTS = Path(__file__).parents[2] / "../shared/weights"
HEADS = Path(torchmetrics.__file__).parent / "functional/image/lpips_models/squeeze.pth"
FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128), 9: (256, 48, 192),
         10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}  # fmt: skip


def noise(count: int = 2, side: int = 64, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.skipif(not WEIGHTS.exists(), reason="needs ../shared/weights")
def test_the_documented_value() -> None:
    network = load_lpips(WEIGHTS)
    torch.manual_seed(123)
    x, y = torch.rand(10, 3, 100, 100) * 2 - 1, torch.rand(10, 3, 100, 100) * 2 - 1
    assert float(network(x, y).mean()) == pytest.approx(0.1008, abs=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files named and laid out as torchvision's and the authors', with random numbers in them."""
    folder = tmp_path_factory.mktemp("lpips")
    random = torch.Generator().manual_seed(0)

    def conv(name: str, channels_in: int, channels_out: int, kernel: int) -> dict[str, Tensor]:
        scale = (2 / (channels_in * kernel**2)) ** 0.5
        weight = torch.randn(channels_out, channels_in, kernel, kernel, generator=random) * scale
        return {f"{name}.weight": weight, f"{name}.bias": torch.randn(channels_out, generator=random) / 10}

    tower = conv("features.0", 3, 64, 3) | conv("classifier.1", 512, 10, 1)
    for number, (channels_in, squeezed, expanded) in FIRES.items():
        tower |= conv(f"features.{number}.squeeze", channels_in, squeezed, 1)
        tower |= conv(f"features.{number}.expand1x1", squeezed, expanded, 1)
        tower |= conv(f"features.{number}.expand3x3", squeezed, expanded, 3)
    heads = {
        f"lin{n}.model.1.weight": torch.rand(1, c, 1, 1, generator=random) for n, c in enumerate(SqueezeNet.CHANNELS)
    }
    torch.save(tower, folder / "squeezenet1_1-b8a52dc0.pth")
    torch.save(heads, folder / "squeeze.pth")
    return folder


def straight(folder: Path, x: Tensor, y: Tensor) -> Tensor:
    """LPIPS by functions alone."""
    tower = torch.load(folder / "squeezenet1_1-b8a52dc0.pth", weights_only=True)
    heads = torch.load(folder / "squeeze.pth", weights_only=True)

    def features(x: Tensor) -> list[Tensor]:
        conv = lambda x, name, **how: F.conv2d(x, tower[f"{name}.weight"], tower[f"{name}.bias"], **how)  # noqa: E731
        mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = F.relu(conv((x - mean[:, None, None]) / deviation[:, None, None], "features.0", stride=2))
        found = [x]
        for number in FIRES:
            if number in (3, 6, 9):
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            name = f"features.{number}"
            s = F.relu(conv(x, f"{name}.squeeze"))
            wide = conv(s, f"{name}.expand3x3", padding=1)
            x = F.relu(torch.cat([conv(s, f"{name}.expand1x1"), wide], 1))
            if number not in (3, 6):
                found.append(x)
        return [f / (f.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for f in found]

    pairs = zip(features(x), features(y), strict=True)
    return sum(
        F.conv2d((a - b) ** 2, heads[f"lin{n}.model.1.weight"]).mean((1, 2, 3)) for n, (a, b) in enumerate(pairs)
    )


def test_equals_a_straightforward_computation(folder: Path) -> None:
    before = torch.get_rng_state()
    network = load_lpips(folder)
    assert torch.equal(torch.get_rng_state(), before)
    x, y = noise(seed=1), noise(seed=2)
    found = network(x, y)
    assert found.shape == (2,) and found.min() > 0.01
    torch.testing.assert_close(found, straight(folder, x, y), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(network(y, x), found)
    assert network(x, x).abs().max() == 0
    gray = x[:, :1]
    torch.testing.assert_close(network(gray, y[:, :1]), network(*(g.expand(-1, 3, -1, -1) for g in (gray, y[:, :1]))))


def test_safetensors_and_half_precision(folder: Path, tmp_path: Path) -> None:
    halves = {k: v.half() for k, v in torch.load(folder / "squeezenet1_1-b8a52dc0.pth", weights_only=True).items()}
    save_file(halves, tmp_path / "squeezenet1_1_fp16.safetensors")
    save_file(torch.load(folder / "squeeze.pth", weights_only=True), tmp_path / "lpips_v0.1_squeeze_heads.safetensors")
    x, y = noise(seed=1), noise(seed=2)
    torch.testing.assert_close(load_lpips(tmp_path)(x, y), load_lpips(folder)(x, y), rtol=1e-2, atol=1e-3)


def test_reads_the_authors_heads(folder: Path, tmp_path: Path) -> None:
    """torchmetrics carries the very file, whose tensors were saved on a GPU."""
    shutil.copy(folder / "squeezenet1_1-b8a52dc0.pth", tmp_path)
    shutil.copy(HEADS, tmp_path)
    network = load_lpips(tmp_path)
    published = torch.load(HEADS, weights_only=True, map_location="cpu")
    assert torch.equal(network.heads[6], published["lin6.model.1.weight"])
    if WEIGHTS.exists():
        mine = load_file(WEIGHTS / "lpips_v0.1_squeeze_heads.safetensors")
        assert all(torch.equal(mine[name], published[name]) for name in mine)


def test_smallest_image(folder: Path) -> None:
    network, smallest = load_lpips(folder), SqueezeNet.SMALLEST
    assert network(noise(1, smallest, 1), noise(1, smallest, 2)) > 0
    with pytest.raises(RuntimeError):  # evaluate leaves them out
        network(noise(1, smallest - 1), noise(1, smallest - 1))


def test_squeezenet_as_a_ruler(folder: Path) -> None:
    """512 features, the last map's means, from the same weight file as LPIPS; whatever the picture's size."""
    ruler = load_features("squeezenet", weights=folder)
    assert (ruler.name, ruler.size) == ("squeezenet", 512)
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    x = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        wanted = load_lpips(folder).tower(x)[-1].mean((2, 3)).double().numpy()
    np.testing.assert_allclose(ruler([image]), wanted, rtol=1e-4, atol=1e-5)
    assert ruler([image[:50, :70, :1]]).shape == (1, 512)
    with pytest.raises(BadInput, match="no file squeezenet1_1"):
        load_features("squeezenet", weights=folder.parent / "nowhere")


def test_bad_weights(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"no file squeezenet1_1.*download\.pytorch\.org"):
        load_lpips(tmp_path)
    shutil.copy(folder / "squeezenet1_1-b8a52dc0.pth", tmp_path)
    with pytest.raises(BadInput, match=r"no file .*squeeze.*PerceptualSimilarity"):
        load_lpips(tmp_path)
    (tmp_path / "squeeze.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="no file of PyTorch weights"):
        load_lpips(tmp_path)
    save_file({"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, tmp_path / "squeeze.safetensors")
    with pytest.raises(BadInput, match="not the weights of Lpips"):
        load_lpips(tmp_path)
    monkeypatch.setenv("VICEVERSA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(BadInput, match=r"put https://download\.pytorch\.org/.*, or use --lpips FOLDER"):
        load_lpips()


def test_psnr_and_ssim() -> None:
    x = noise(1)
    y = (x + 0.1 * noise(1, seed=3)).clamp(-1, 1)
    assert psnr(x, y) == pytest.approx(10 * math.log10(4 / float(((x - y) ** 2).mean())), rel=1e-5)
    assert psnr(x, x) == math.inf and float(ssim(x, x)) == 1
    for one, other in ((x, y), (x[:, :1, :11, :30], y[:, :1, :11, :30])):
        theirs = torchmetrics.functional.image.structural_similarity_index_measure(one, other, data_range=(-1.0, 1.0))
        assert float(ssim(one, other)) == pytest.approx(float(theirs), abs=1e-5) and 0.9 < theirs < 1


def test_structure_by_scipy() -> None:
    """Equation 10 of Wang et al. 2004, with SciPy's Gaussian window of the same radius."""
    x, y = noise(1, 40, 1), noise(1, 40, 2) / 2
    y = (x + y).clamp(-1, 1)
    a, b = (np.tensordot([0.299, 0.587, 0.114], t[0].double().numpy(), 1) for t in (x, y))
    g = lambda image: gaussian_filter(image, 1.5, mode="mirror", radius=5)  # noqa: E731
    covariance, va, vb = g(a * b) - g(a) * g(b), g(a * a) - g(a) ** 2, g(b * b) - g(b) ** 2
    small = (0.03 * 2) ** 2 / 2
    wanted = ((covariance + small) / (np.sqrt(va) * np.sqrt(vb) + small)).mean()
    assert 0.2 < wanted < 0.95
    assert float(structure(x, y)) == pytest.approx(wanted, abs=1e-9)


def test_structure_ignores_light_and_minds_edges() -> None:
    x = F.interpolate(noise(2, 8), 64, mode="bicubic").clamp(-1, 1)
    assert structure(x, x).tolist() == pytest.approx([1, 1])
    assert structure(x, 0.5 * x - 0.4).min() > 0.97  # darker and flatter, as by night
    assert structure(x, -x).max() < -0.5
    assert structure(x, x.roll(32, 3)).max() < 0.4
    assert structure(x, x.mean(1, keepdim=True)).min() > 0.8  # colour to gray
    assert torch.isfinite(structure(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4))).all()


def test_the_tower_is_the_published_one() -> None:
    with torch.device("meta"):
        network = Lpips()
    assert sum(p.numel() for p in network.tower.parameters()) == 722_496
