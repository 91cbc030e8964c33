"""LPIPS (Zhang et al. 2018) by SqueezeNet 1.1, and the other measures of one image against another.

No torchvision: the tower is a few lines. Images are float (B, C, H, W) in [-1, 1], colour or gray.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.fetch import Download, fetch
from ..errors import BadInput
from .features import full_precision, read_weights

SQUEEZENET = Download(
    "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
    "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
)
"""torchvision's SqueezeNet 1.1, trained on ImageNet."""
HEADS = Download(
    "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/squeeze.pth",
    "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
)
"""The learned weights of LPIPS, version 0.1, by its authors."""

SMALLEST = 17
"""Below this side the tower's last pool has nothing left."""

SSIM_WINDOW = 11
"""SSIM needs images of at least this side."""

CHANNELS = (64, 128, 256, 384, 384, 512, 512)
TAPS = (1, 4, 7, 9, 10, 11, 12)
"""The layers of SqueezeNet whose outputs are compared."""


class Fire(nn.Module):
    """Squeeze to few channels by 1x1, expand by 1x1 and 3x3 side by side (Iandola et al. 2016)."""

    def __init__(self, channels_in: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels_in, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class Lpips(nn.Module):
    """Learned perceptual distance of pairs of images, 0 for equal ones. (B, 3, H, W) in [-1, 1] twice -> (B,)."""

    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, Fire(64, 16, 64), Fire(128, 16, 64), pool,
            Fire(128, 32, 128), Fire(256, 32, 128), pool, Fire(256, 48, 192), Fire(384, 48, 192),
            Fire(384, 64, 256), Fire(512, 64, 256),
        )  # fmt: skip
        self.heads = nn.ParameterList(torch.zeros(1, channels, 1, 1) for channels in CHANNELS)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        total = x.new_zeros(len(x))
        for head, a, b in zip(self.heads, self.tower(x), self.tower(y), strict=True):
            total += (head * (unit(a) - unit(b)) ** 2).sum(1).mean((1, 2))
        return total

    def tower(self, x: Tensor) -> list[Tensor]:
        # the authors' shift and scale, which bring [-1, 1] to what ImageNet networks are given
        shift = x.new_tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
        x = (x - shift) / x.new_tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
        outputs = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in TAPS:
                outputs.append(x)
        return outputs


def unit(x: Tensor) -> Tensor:
    """Each pixel's channels to length 1."""
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def load_lpips(folder: Path | None = None, device: torch.device | None = None) -> Lpips:
    """LPIPS with its weights: from files in `folder` whose names begin with squeezenet1_1 and end with (or
    hold) squeeze, as .pth or .safetensors; by default fetched on first use. Raises BadInput.
    """
    alternative = "--lpips FOLDER with that file in it"
    tower_file = fetch(SQUEEZENET, alternative=alternative) if folder is None else only(folder, "squeezenet1_1*")
    heads_file = fetch(HEADS, alternative=alternative) if folder is None else only(folder, "*squeeze[._]*")
    tower, heads = tensors(tower_file), tensors(heads_file)
    state = {name: value for name, value in tower.items() if name.startswith("features.")}
    state |= {f"heads.{name.split('.')[0].removeprefix('lin')}": value for name, value in heads.items()}
    with torch.device("meta"):  # draws no random numbers
        network = Lpips()
    try:
        network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    except RuntimeError as error:
        raise BadInput(f"{tower_file} and {heads_file} are not the weights of LPIPS: {error}") from None
    return network.to(device or torch.device("cpu")).eval().requires_grad_(False)


def only(folder: Path, pattern: str) -> Path:
    """The one weight file in `folder` with such a name."""
    found = [file for file in sorted(folder.glob(pattern)) if file.suffix in (".pth", ".safetensors")]
    if not found:
        raise BadInput(
            f"--lpips {folder}: no file {pattern}.pth or .safetensors in it; it needs {SQUEEZENET.url} and {HEADS.url}"
        )
    return found[0]


def tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        return read_weights(path)
    try:
        return load_file(path)
    except Exception as error:
        raise BadInput(f"{path} is no file of weights ({error})") from None


@torch.inference_mode()
def lpips(network: Lpips, x: Tensor, y: Tensor) -> Tensor:
    """LPIPS of pairs, on the network's device, in full float32. Raises BadInput for images that are too small."""
    if min(x.shape[-2:]) < SMALLEST:
        raise BadInput(f"LPIPS needs images of at least {SMALLEST} x {SMALLEST}, not {x.shape[-1]} x {x.shape[-2]}")
    device = next(network.parameters()).device
    with full_precision(device):
        out: Tensor = network(x.float().to(device), y.float().to(device))
    return out.cpu()


def psnr_ssim(x: Tensor, y: Tensor) -> tuple[float, float]:
    """PSNR in dB (infinite for equal images) and SSIM (Wang et al. 2004) of one pair, (1, C, H, W) each."""
    try:
        from torchmetrics.functional.image import (
            peak_signal_noise_ratio,
            structural_similarity_index_measure,
        )
    except ImportError:
        raise BadInput("PSNR and SSIM need torchmetrics: pip install 'viceversa[evaluate]'") from None
    ssim = structural_similarity_index_measure(x, y, data_range=(-1.0, 1.0))
    return float(peak_signal_noise_ratio(x, y, data_range=(-1.0, 1.0))), float(ssim)  # type: ignore[arg-type]


def structure(x: Tensor, y: Tensor) -> Tensor:
    """How much of the structure of `x` is in `y`: the structure term of SSIM (Wang et al. 2004, equation 10).

    The correlation of the two luminances within a Gaussian window (11 pixels, sigma 1.5), averaged over the
    image: 1 where every edge lies where it lay, about 0 where nothing does, negative where light and dark are
    swapped. Brightness and contrast may change freely, as between day and night. (B, C, H, W) -> (B,).
    """
    a, b = luminance(x), luminance(y)
    mean_a, mean_b = window(a), window(b)
    variance_a = (window(a * a) - mean_a**2).clamp_min(0)
    variance_b = (window(b * b) - mean_b**2).clamp_min(0)
    covariance = window(a * b) - mean_a * mean_b
    small = (0.03 * 2) ** 2 / 2  # C3 for the range -1 to 1: flat places, such as a black sky, count as kept
    term = (covariance + small) / (torch.sqrt(variance_a * variance_b) + small)
    return term.mean((1, 2, 3))


def luminance(x: Tensor) -> Tensor:
    """(B, 3 or 1, H, W) -> (B, 1, H, W), by BT.601 as in the paper's own code; float64, as variances need."""
    x = x.double()
    if x.shape[1] == 1:
        return x
    return (x * x.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


def window(x: Tensor) -> Tensor:
    """Weighted mean around each pixel: Gaussian, 11 x 11, sigma 1.5; beyond the edge the image is mirrored."""
    row = torch.exp(-(torch.arange(-5.0, 6.0, dtype=x.dtype, device=x.device) ** 2) / (2 * 1.5**2))
    row = row / row.sum()
    x = F.pad(x, (5, 5, 5, 5), "reflect" if min(x.shape[-2:]) > 5 else "replicate")
    return F.conv2d(F.conv2d(x, row.view(1, 1, 1, 11)), row.view(1, 1, 11, 1))
