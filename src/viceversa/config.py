"""What a person may choose: a frozen dataclass for each command. Field docstrings are the help texts.

The command line and the Python functions take the same names. This file imports no torch, so that
`viceversa --help` answers at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg, subcommand

Device = str
Precision = Literal["auto", "fp32", "bf16"]
Score = Literal["none", "kid", "frechet"]


@dataclass(frozen=True, kw_only=True)
class Train:
    """Learn to translate between two folders of images, both ways.

    viceversa train DAY NIGHT --out RUN, or viceversa train ROOT with ROOT/trainA, trainB and, if there,
    testA, testB. The same command on a run folder resumes it.
    """

    a: Annotated[Positional[str], arg(metavar="DAY")]
    """Images of the first domain: a folder (searched recursively), a quoted glob, or a text file of paths.
    Alone: a folder with trainA and trainB."""
    b: Annotated[Positional[str | None], arg(metavar="NIGHT")] = None
    """Images of the second domain."""
    out: Path = Path("runs/latest")
    """Run folder. A run found there is resumed; --epochs, --decay-epochs, --minutes, --log and --device may
    change then."""
    test_a: str | None = None
    """Test images of the first domain, for the progress pictures. Default: ROOT/testA, or four images held
    out of training."""
    test_b: str | None = None
    """Test images of the second domain."""
    names: tuple[str, str] | None = None
    """What the two domains are called. Default: the names of the two folders."""

    epochs: int = 100
    """Epochs at the full learning rate. An epoch is as many steps as the larger folder has images."""
    decay_epochs: int = 100
    """Epochs in which the learning rate then falls linearly to zero."""
    minutes: float | None = None
    """Train so long instead, by the clock: --epochs and --decay-epochs then give only the proportion."""
    batch: int = 1
    """Images of each domain a step (in each process)."""
    learning_rate: float = 2e-4
    """Learning rate of Adam, at the start."""

    size: int = 286
    """Resize to this before cropping."""
    crop: int = 256
    """Side of the random square that is trained on."""
    resize: Literal["square", "short", "none"] = "square"
    """square: to SIZE x SIZE, as the paper; short: the short side to SIZE, the aspect kept; none: crop from
    the native size, for high-resolution photos."""
    channels: tuple[Literal[1, 3], Literal[1, 3]] = (3, 3)
    """Channels of each domain: 3 colour, 1 gray."""

    cycle: float = 10.0
    """Weight of the cycle loss (lambda, equation 3)."""
    identity: float = 5.0
    """Weight of the identity loss, which keeps colours from inverting (section 5.2); 0 turns it off."""
    adversarial: Literal["least-squares", "log-likelihood"] = "least-squares"
    """Adversarial loss."""
    history: int = 50
    """Earlier fakes kept to show to each discriminator; 0 shows the newest only."""

    projected: float = 0.0
    """Weight of a second discriminator, which judges by the maps of a frozen network: crisp pictures, early. 0: off."""
    zoom: float = 1.0
    """Enlarge crops at random, up to so many times: things are then known at several sizes."""

    generator: Literal["resnet", "unet", "pyramid"] = "resnet"
    """The paper's residual generator; the U-Net of pix2pix (for crops of 128, 256 and multiples); or a pyramid,
    which translates a small copy and carries the photo's own detail over, for high resolution."""
    levels: int = 2
    """How often a pyramid halves the image."""
    sees: bool = False
    """A frozen network tells the generators what they look at."""
    upsample: Literal["transposed", "nearest"] = "transposed"
    """Transposed convolution as in the paper, or nearest-neighbour and convolution: no checkerboard."""
    width: int = 64
    """Channels of the generators' and discriminators' first layer."""
    blocks: int = 9
    """Residual blocks (resnet): 9 in the paper for 256 px and up, 6 for 128."""
    discriminator: Literal["patch", "pixel", "none"] = "patch"
    """PatchGAN; 1x1 PixelGAN, which judges colours alone; or none, where --projected judges."""
    discriminator_layers: int = 3
    """Layers of the PatchGAN: 3 judges 70x70 patches, 2 34x34, 1 16x16."""
    ema: float = 0.0
    """Keep a moving average of the generators with this decay, and use it for pictures and the model: 0.999
    is usual. 0: off."""

    score: Score = "none"
    """Score the translations of the test images by this while training; best.safetensors keeps the best."""
    score_every: int = 5
    """Score every so many epochs, and at the end."""
    patience: int = 0
    """Stop when so many scores in a row were no better. 0: never."""
    features: str = "inception"
    """Features of the score: inception, lite0, or a file.onnx (see viceversa evaluate)."""

    seed: int | None = None
    """Seed of everything random. Default: drawn, printed and kept in the run."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:1, ..., mps."""
    precision: Precision = "auto"
    """auto: bf16 where the chip has it, fp32 elsewhere."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, slower."""
    log: Literal["tensorboard", "none"] = "tensorboard"
    """Write TensorBoard files besides metrics.jsonl."""

    CHANGEABLE = ("epochs", "decay_epochs", "minutes", "log", "device", "out")


@dataclass(frozen=True, kw_only=True)
class Translate:
    """Translate images, folders of images, and videos at their own size.

    viceversa translate MODEL INPUT... --to night -o OUT
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A model file, a run folder, or hf://owner/name."""
    inputs: Annotated[Positional[tuple[str, ...]], arg(metavar="INPUT...")]
    """Images, folders, quoted globs, videos, or - for an image on standard input."""
    to: str | None = None
    """The domain to translate to. May be left out where the model has one direction only."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("translated")
    """Folder to write to; or a file, where there is one input; or - for standard output."""
    format: Literal["jpg", "png", "webp", "tiff", "bmp"] | None = None
    """Format of the images. Default: that of the input."""
    overwrite: bool = False
    """Replace what exists. Default: what exists is left, and a folder goes on where it stopped."""
    compare: bool = False
    """Also write before and after side by side."""
    round_trip: bool = False
    """Also write the way there and back."""
    size: int | None = None
    """Translate with the short side at this, then return to the input's size, with the input's detail."""
    memory: str | None = None
    """Memory for the network, such as 4GB; larger images go by tiles. Default: from what is free."""
    codec: str = "h264"
    """Codec of videos."""
    quality: int = 80
    """Quality of videos and of JPEG and WebP images, 1 to 100."""
    steady: bool = True
    """Keep videos from flickering."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:1, ..., mps."""
    precision: Precision = "auto"
    """auto: bf16 where the chip has it, fp32 elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure how good translations are: KID and Frechet distance, with pairs also PSNR, SSIM and LPIPS.

    viceversa evaluate MODEL [MODEL...] DAY NIGHT, or viceversa evaluate --fake FOLDER --real FOLDER
    """

    inputs: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL... DAY NIGHT")] = ()
    """One or more models, then the folder of test images of each domain."""
    fake: str | None = None
    """Folder of translated images made elsewhere."""
    real: str | None = None
    """Folder of real images to compare them with."""
    features: str = "inception"
    """inception (the field's; fetched on first use), lite0 (from the package index), or a FILE.onnx."""
    resizing: Literal["legacy", "clean"] = "legacy"
    """How images reach the Inception network: as pytorch-fid does, or as clean-fid does."""
    protocol: Literal["none", "cut"] = "none"
    """cut: the published horse to zebra protocol (256x256, all test images, Inception, legacy)."""
    paired: bool = False
    """Same name means same scene: also PSNR, SSIM and LPIPS. On by itself where all names are the same."""
    lpips: Path | None = None
    """Folder with the SqueezeNet and LPIPS weight files. Default: fetched on first use."""
    json: bool = False
    """Print one JSON object instead of a table."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:1, ..., mps."""
    precision: Precision = "auto"
    """auto: bf16 where the chip has it, fp32 elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one self-contained HTML page about a run, or about several side by side."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN...")]
    """Run folders."""
    out: Annotated[Path | None, arg(aliases=["-o"])] = None
    """The page. Default: report.html in the (first) run folder."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Look at two folders before training: counts, sizes, broken files, duplicates, and what to do."""

    a: Annotated[Positional[str], arg(metavar="DAY")]
    """Images of the first domain. Alone: a folder with trainA and trainB."""
    b: Annotated[Positional[str | None], arg(metavar="NIGHT")] = None
    """Images of the second domain."""
    test_a: str | None = None
    """Test images of the first domain."""
    test_b: str | None = None
    """Test images of the second domain."""
    out: Annotated[Path | None, arg(aliases=["-o"])] = None
    """Also write an HTML page here."""


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Fetch one of the authors' public sets: viceversa data fetch horse2zebra. Without a name: list them.

    Its terms are shown first; a broken download goes on; the checksum is compared where one is known.
    """

    name: Annotated[Positional[str | None], arg(metavar="NAME")] = None
    """Name of the set. Default: show the list."""
    out: Annotated[Path | None, arg(aliases=["-o"])] = None
    """Folder to make. Default: data/NAME."""
    mirror: str | None = None
    """Address (or file://FOLDER) under which NAME.zip lies, asked first. Default: the authors' host."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """Turn the authors' .pth files into a model file: viceversa import G_A.pth G_B.pth --names horse zebra"""

    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="G_A.pth G_B.pth")]
    """The generator from the first domain to the second, and the one back if there is one."""
    names: tuple[str, str] = ("a", "b")
    """What the two domains are called."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("model.safetensors")
    """The model file to write."""
    overwrite: bool = False
    """Replace what exists."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write one direction of a model as ONNX or torch.export, and check it against the model."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A model file, a run folder, or hf://owner/name."""
    to: str | None = None
    """The domain to translate to. May be left out where the model has one direction only."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("model.onnx")
    """The file to write; its ending chooses the format: .onnx or .pt2."""
    half: bool = False
    """Weights and arithmetic in half precision."""
    overwrite: bool = False
    """Replace what exists."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train Earth by day <-> Earth by night on what ships in the package, and show how near the truth it is."""

    out: Path = Path("runs/earth")
    """Run folder."""
    minutes: float | None = None
    """How long to train. Default: what suits this machine, 5 minutes at most."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:1, ..., mps."""


DATA_FETCH = "data fetch"
"""Two words on the command line; `viceversa data ./fetch DAY` looks at a folder of that name."""
Command = (
    Train | Translate | Evaluate | Report | Data | Annotated[Fetch, subcommand(DATA_FETCH)] | Import | Export | Demo
)
