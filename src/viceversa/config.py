"""What a person may choose: a frozen dataclass for each command, and recipes. Field docstrings are the help texts.

The command line and the Python functions take the same names, and `make` checks both. This file imports no
torch, so that `viceversa --help` answers at once.
"""

import json
import math
import os
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tyro.conf import Positional, arg, subcommand

from .errors import BadInput, suggestion


@dataclass(frozen=True)
class Within:
    """Beside a number's type: what it may be. Infinity and NaN never are."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        words = {"at least": self.least, "at most": self.most, "above": self.above, "below": self.below}
        return " and ".join(f"{word} {limit:,}" for word, limit in words.items() if math.isfinite(limit))


@dataclass(frozen=True)
class APath:
    """Beside a text's type: a folder, a file, a glob, or the name of a model."""


Where = Annotated[str, APath()]
Whole = Annotated[int, Within(least=0)]
Count = Annotated[int, Within(least=1)]
Weight = Annotated[float, Within(least=0)]
Above0 = Annotated[float, Within(above=0)]
Seed = Annotated[int, Within(least=0, most=2**63 - 1)]

LARGEST_SIZE = 65_536
Device = str
Precision = Literal["auto", "fp32", "bf16"]
Score = Literal["none", "kid", "frechet"]


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What is trained; a recipe chooses these well."""

    generator: Literal["resnet", "unet", "pyramid"] = "resnet"
    """The paper's residual generator; the U-Net of pix2pix (for crops of 128, 256 and multiples); or the pyramid,
    which translates a small copy and carries the photo's own detail over: for high resolution."""
    levels: Annotated[int, Within(least=1, most=4)] = 2
    """How often the pyramid halves its input."""
    guided: bool = False
    """Let the pyramid's colours follow the edges of the photo (a guided filter), and light come on between them."""
    log_light: bool = False
    """Let the pyramid look at the logarithm of light: what lies in the dark counts as much then as what is bright."""
    recolour: bool = False
    """Let the pyramid draw onto the photo in the other domain's colours (it begins as a transfer of colours), instead
    of drawing all colours anew."""
    sees: bool = False
    """Show the generator what a frozen classification network sees in the picture (resnet, pyramid)."""
    upsample: Literal["transposed", "nearest"] = "transposed"
    """Transposed convolution as in the paper, or nearest-neighbour and convolution: no checkerboard."""
    width: Count = 64
    """Channels of the generators' and discriminators' first layer."""
    blocks: Count = 9
    """Residual blocks (resnet, pyramid): 9 in the paper for 256 px and up, 6 for 128."""
    discriminator: Literal["patch", "pixel", "none"] = "patch"
    """PatchGAN; 1x1 PixelGAN, which judges colours alone; or none, where --projected judges."""
    discriminator_layers: Count = 3
    """Layers of the PatchGAN: 3 judges 70x70 patches, 2 34x34, 1 16x16."""
    discriminator_norm: bool = True
    """Instance norm in the discriminators, as in the paper. Without, they see how light pictures are, and of what
    colour."""
    patch: Count | None = None
    """The PatchGAN judges a random square of so many pixels of each crop, which is quicker. Default: all of it."""
    zoom: Annotated[float, Within(least=1, most=8)] = 1.0
    """Enlarge crops at random, up to so many times: things are then known at several sizes."""
    projected: Weight = 0.0
    """Weight of a second discriminator, which judges by the features of a frozen network; 0: none."""
    history: Whole = 50
    """Earlier fakes kept to show to each discriminator; 0 shows the newest only."""
    ema: Annotated[float, Within(least=0, below=1)] = 0.0
    """Keep a moving average of the generators with this decay, and use it for pictures and the model: 0.999
    is usual. 0: off."""


@dataclass(frozen=True, kw_only=True)
class Train(Networks):
    """Learn to translate between two folders of images, both ways.

    viceversa train DAY NIGHT --out RUN, or viceversa train ROOT with ROOT/trainA, trainB and, if there,
    testA, testB. The same command on a run folder resumes it, and need not repeat its flags.
    """

    a: Annotated[Positional[Where], arg(metavar="DAY")]
    """Images of the first domain: a folder (searched recursively), a quoted glob, or a text file of paths.
    Alone: a folder with trainA and trainB."""
    b: Annotated[Positional[Where | None], arg(metavar="NIGHT")] = None
    """Images of the second domain."""
    recipe: Annotated[str, arg(metavar="NAME")] = "paper"
    """Settings that go well together, where no flag says otherwise. A run that is resumed keeps its own. paper: as
    published; photo: day and night in high resolution; paint: styles and weather; fast: small pictures, soon; demo:
    Earth in minutes. For what they are named after: drive, season, weather, painting, dslr, apple2orange,
    horse2zebra, map, face, avatar, colour, medical."""
    start: Annotated[Where | None, arg(metavar="MODEL")] = None
    """Begin with the weights of this model (a run, a file, a name, hf://owner/name) instead of random ones: to add
    pictures, or to go on from published weights. A run's discriminators and settings come along. A resumed run does
    not ask."""
    out: Path = Path("runs/latest")
    """Run folder. A run found there is resumed. Learning rate, batch, precision and the weights of the losses may
    change then, which is told and kept in config.json; networks, domains and sizes may not."""
    test_a: Where | None = None
    """Test images of the first domain, for the progress pictures. Default: ROOT/testA, or four images held
    out of training."""
    test_b: Where | None = None
    """Test images of the second domain."""
    names: tuple[str, str] | None = None
    """What the two domains are called. Default: the names of the two folders."""

    epochs: Whole = 100
    """Epochs at the full learning rate. In an epoch all images of the larger folder are seen once."""
    decay_epochs: Whole = 100
    """Epochs in which the learning rate then falls linearly to zero."""
    minutes: Above0 | None = None
    """Train so long instead, by the clock: --epochs and --decay-epochs then give only the proportion."""
    batch: Count = 1
    """Images of each domain a step (in each process)."""
    learning_rate: Above0 = 2e-4
    """Learning rate of Adam, at the start."""

    size: Count = 286
    """Resize to this before cropping."""
    crop: Count = 256
    """Side of the random square that is trained on."""
    resize: Literal["square", "short", "none"] = "square"
    """square: to SIZE x SIZE, as the paper; short: the short side to SIZE, the aspect kept; none: crop from
    the native size, for high-resolution photos."""
    channels: tuple[Literal[1, 3], Literal[1, 3]] = (3, 3)
    """Channels of each domain: 3 colour, 1 gray."""
    keep_lightness: bool = False
    """Of a model that colours gray pictures (--channels 1 3): in use it gives the colours alone, and the lightness of
    each picture stays exactly as it is."""

    cycle: Weight = 10.0
    """Weight of the cycle loss (lambda, equation 3)."""
    identity: Weight = 5.0
    """Weight of the identity loss, which keeps colours from inverting (section 5.2); 0 turns it off."""
    tint: Weight = 0.0
    """Weight of the tint loss: holds how light and how colourful the latest fakes are, on the whole, to what the real
    images are. Discriminators hardly see it. A pyramid of two levels and more also gets, in use, the contrast of the
    real images. 0: none."""
    adversarial: Literal["least-squares", "log-likelihood"] = "least-squares"
    """Adversarial loss."""
    score: Score = "none"
    """Score the translations of the test images by this while training; best.safetensors keeps the best."""
    score_every: Count = 5
    """Score every so many epochs, and at the end."""
    patience: Whole = 0
    """Stop when so many scores in a row were no better. 0: never."""
    features: str = "inception"
    """Features of the score: inception, lite0, squeezenet, or a file.onnx (see viceversa evaluate)."""
    keep: Whole = 20
    """Keep the models of so many epochs, evenly spread, for translate RUN --epoch 40; 0 keeps the last and the best."""

    images: Literal["same", "changed"] = "same"
    """changed: go on with a run although images are new or missing since it began."""
    seed: Seed | None = None
    """Seed of everything random. Default: drawn, printed and kept in the run. On a CPU the same seed gives the
    same weights to the last bit; on a GPU nearly, where some gradients add in any order."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:1, ..., mps."""
    precision: Precision = "auto"
    """auto: bf16 where the chip has it, fp32 elsewhere."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, slower."""
    log: Literal["tensorboard", "none"] = "tensorboard"
    """Write TensorBoard files besides metrics.jsonl."""
    engine: Literal["local", "ray"] = "local"
    """ray: on a cluster (docs/scale.md); the run folder must lie where all machines see it."""
    address: str | None = None
    """With --engine ray: the cluster, such as auto, HOST:6379 or ray://HOST:10001. Default: a new one, of this
    machine alone."""
    workers: Count | None = None
    """With --engine ray: processes that train together. Default: one for each GPU, or one."""


@dataclass(frozen=True, kw_only=True)
class Translate:
    """Translate images, folders of images, and videos at their own size.

    viceversa translate MODEL INPUT... --to night -o OUT
    """

    model: Annotated[Positional[Where], arg(metavar="MODEL")]
    """A model file, a run folder, the name of one that comes along (viceversa models), or hf://owner/name."""
    epoch: Count | None = None
    """Of a run folder: the model of this epoch, where it was kept. Default: the best, else the last."""
    inputs: Annotated[Positional[tuple[Where, ...]], arg(metavar="INPUT...")]
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
    strength: Annotated[float, Within(least=0, most=1)] = 1.0
    """How much of the way to go: 1 the full translation, 0 the input."""
    with_labels: bool = False
    """A labelled set: also copy what is no image (YOLO, COCO, VOC ...), and never translate the pictures in
    folders named mask(s), label(s), annotations, SegmentationClass or SegmentationObject, but copy them."""
    watch: bool = False
    """Keep on translating what arrives; Ctrl-C ends it."""
    seconds: Annotated[float, Within(least=0, most=3600)] | None = None
    """How long the change takes where one photo becomes a film (-o evening.mp4; with this also .gif, .webp and .png).
    Default: 4."""
    size: Annotated[int, Within(least=1, most=LARGEST_SIZE)] | None = None
    """Translate with the short side at this, then return to the input's size, with the input's detail. Default: its
    own size; but a pyramid, or a generator that sees, is shown photos of twice the size that it was trained on, and
    more, from farther away."""
    memory: str | None = None
    """Memory for the network, such as 4GB; larger images go by tiles. Default: from what is free."""
    codec: str = "h264"
    """Codec of videos."""
    quality: Annotated[int, Within(least=1, most=100)] = 80
    """Quality of videos and of JPEG, WebP and AVIF images, 1 to 100."""
    steady: bool = True
    """Keep videos from flickering."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:1, ..., mps."""
    precision: Precision = "auto"
    """auto: bf16 where the chip has it, fp32 elsewhere."""
    engine: Literal["local", "ray"] = "local"
    """ray: on a cluster (docs/scale.md). Inputs and --out may then be addresses (s3://bucket/day/, gs:// ...),
    inputs also Parquet and WebDataset (.tar)."""
    address: str | None = None
    """With --engine ray: the cluster, such as auto, HOST:6379 or ray://HOST:10001. Default: a new one, of this
    machine alone."""
    workers: Count | None = None
    """With --engine ray: networks at work at a time. Default: one for each GPU, or for each CPU core."""
    shards: Literal["parquet", "webdataset"] | None = None
    """With --engine ray: write the images into Parquet or WebDataset (.tar) files instead of one by one."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure how good translations are: KID and Frechet distance, with pairs also PSNR, SSIM and LPIPS.

    viceversa evaluate MODEL [MODEL...] DAY NIGHT, or viceversa evaluate --fake FOLDER --real FOLDER
    """

    inputs: Annotated[Positional[tuple[Where, ...]], arg(metavar="MODEL... DAY NIGHT")] = ()
    """One or more models, then the folder of test images of each domain, or one that holds testA and testB."""
    fake: Where | None = None
    """Folder of translated images made elsewhere."""
    real: Where | None = None
    """Folder of real images to compare them with."""
    features: str = "inception"
    """inception (the field's; fetched on first use), lite0 (from the package index), squeezenet (of another family), or
    a FILE.onnx."""
    resizing: Literal["legacy", "clean"] = "legacy"
    """How images reach the Inception network: as pytorch-fid does, or as clean-fid does."""
    protocol: Literal["none", "cut"] = "none"
    """cut: the published horse to zebra protocol (256x256, all test images, Inception, legacy)."""
    paired: bool | None = None
    """Same name means same scene: also PSNR, SSIM and LPIPS. Default: where all names are the same."""
    lpips: Path | None = None
    """Folder with the weight files of SqueezeNet and LPIPS. Default: fetched on first use."""
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

    a: Annotated[Positional[Where], arg(metavar="DAY")]
    """Images of the first domain. Alone: a folder with trainA and trainB."""
    b: Annotated[Positional[Where | None], arg(metavar="NIGHT")] = None
    """Images of the second domain."""
    test_a: Where | None = None
    """Test images of the first domain."""
    test_b: Where | None = None
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
    """Address (or file://FOLDER) under which NAME.zip lies. Default: the authors' host. Where $VICEVERSA_MIRROR is
    set, that is asked first."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """Turn the authors' .pth files into a model file: viceversa import G_A.pth G_B.pth --names horse zebra"""

    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="G_A.pth G_B.pth")]
    """The generator from the first domain to the second, and the one back if there is one; or the authors' folder
    checkpoints/NAME, whose latest ones are taken."""
    names: tuple[str, str] = ("a", "b")
    """What the two domains are called."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("model.safetensors")
    """The model file to write."""
    overwrite: bool = False
    """Replace what exists."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write one direction of a model as ONNX or torch.export, and check it against the model."""

    model: Annotated[Positional[Where], arg(metavar="MODEL")]
    """A model file, a run folder, the name of one that comes along (viceversa models), or hf://owner/name."""
    to: str | None = None
    """The domain to translate to. May be left out where the model has one direction only."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("model.onnx")
    """The file to write; its ending chooses the format: .onnx or .pt2."""
    half: bool = False
    """Weights and arithmetic in half precision."""
    page: Path | None = None
    """Write a folder for any static host instead: a page that translates in the visitor's browser, both ways."""
    overwrite: bool = False
    """Replace what exists."""


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve models in the browser, and to programs: a page, and an API that holds up.

    viceversa serve [MODEL...]
    """

    models: Annotated[Positional[tuple[Where, ...]], arg(metavar="MODEL...")] = ()
    """Model files, run folders, names of bundled models, or hf://owner/name. Default: the bundled models."""
    host: str = "127.0.0.1"
    """Address to listen on. Default: this machine alone; 0.0.0.0 is all of the network: then give --auth, too."""
    port: Annotated[int, Within(least=0, most=65535)] = 7860
    """Port to listen on; 0 takes a free one."""
    auth: str | None = None
    """USER:PASSWORD wanted of everybody. Default: $VICEVERSA_AUTH, which other users of this machine cannot see."""
    allow_origin: tuple[str, ...] = ()
    """Other sites whose pages may call, such as https://photos.example; a proxy's own address belongs here, too."""
    open: bool = False
    """Open the page in this machine's browser."""
    queue: Count = 64
    """Pictures that may wait for the network; more are told to come back (503)."""
    seconds: Above0 = 60.0
    """Time limit of a picture, waiting included, and of the orderly stop."""
    megapixels: Above0 = 50.0
    """Largest picture that is taken."""
    megabytes: Above0 = 64.0
    """Largest upload of a picture; films and archives may have eight times that."""
    memory: str | None = None
    """Memory for the network, such as 4GB; larger images go by tiles. Default: from what is free."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:1, ..., mps."""
    precision: Precision = "auto"
    """auto: bf16 where the chip has it, fp32 elsewhere."""
    engine: Literal["local", "ray"] = "local"
    """ray: as a deployment on a cluster, with more and fewer copies by the length of the queue (docs/scale.md)."""
    address: str | None = None
    """With --engine ray: the cluster. Default: a new one, of this machine alone."""
    workers: Count | None = None
    """With --engine ray: the most copies. Default: one for each GPU, or one."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """List the models that come with viceversa, or show what is known of one: networks, training, scores, its card."""

    name: Annotated[Positional[Where | None], arg(metavar="MODEL")] = None
    """The one that is shown: a name in the list, a model file, a run folder, or hf://owner/name. Default: the list."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Turn photos that ship from day to night, then learn Earth by day <-> Earth by night, and show it all."""

    out: Path = Path("runs/demo")
    """Folder for the photos, the run and the report."""
    minutes: Above0 | None = None
    """How long to train. Default: six epochs, a minute or so."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:1, ..., mps."""


DATA_FETCH = "data fetch"
"""Two words on the command line; `viceversa data ./fetch DAY` looks at a folder of that name."""
Command = (
    Train | Translate | Evaluate | Report | Data | Annotated[Fetch, subcommand(DATA_FETCH)] | Import | Export | Models
    | Serve | Demo
)  # fmt: skip
Settings = TypeVar("Settings")
LONGEST_NAME = 255
"""Bytes of a file's name, on all common file systems."""

SMALL_COPY = {
    "generator": "pyramid", "levels": 1, "sees": True, "upsample": "nearest", "width": 32, "blocks": 6,
    "projected": 0.7, "ema": 0.999, "resize": "short", "size": 256, "crop": 240, "identity": 2.0, "cycle": 3.0,
}  # fmt: skip
"""Colours, light and weather change, and everything stays where it is."""
HIGH_RESOLUTION = SMALL_COPY | {
    "levels": 2, "guided": True, "recolour": True, "projected": 0.8, "size": 480, "crop": 448, "patch": 256,
    "zoom": 1.6, "cycle": 1.0, "tint": 2.0,
}  # fmt: skip
NEW_TEXTURE = {
    "upsample": "nearest", "width": 32, "blocks": 6, "projected": 1.0, "ema": 0.999, "size": 286, "crop": 256,
}  # fmt: skip
"""Stripes, drawings and faces are drawn anew, which the pyramid cannot."""

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},  # the defaults are the paper's
    "photo": HIGH_RESOLUTION,  # day and night, city photos
    "paint": SMALL_COPY,
    "fast": NEW_TEXTURE | {"size": 143, "crop": 128},
    "demo": {
        "epochs": 2, "decay_epochs": 4, "resize": "short", "size": 92, "crop": 88, "seed": 1,
        "generator": "pyramid", "levels": 1, "guided": True, "recolour": True, "upsample": "nearest", "width": 24,
        "blocks": 4, "discriminator_layers": 2, "discriminator_norm": False, "projected": 0.5, "identity": 0.5,
        "cycle": 3.0, "tint": 6.0, "ema": 0.995,
        "precision": "fp32",  # so small a network loses more time to casts than bf16 saves
    },
    # What the articles name. Their pages in docs/recipes give the reasons, where a row is not one of the above.
    "drive": HIGH_RESOLUTION,
    "season": SMALL_COPY | {"guided": True},
    "weather": SMALL_COPY | {"guided": True},
    "painting": SMALL_COPY,  # with the identity loss, without which colours of paintings invert (section 5.2)
    "dslr": SMALL_COPY,  # blur is a band that is turned down
    "apple2orange": NEW_TEXTURE | {"identity": 0.0},  # the colour is what is to change
    "horse2zebra": NEW_TEXTURE | {"sees": True, "size": 208, "crop": 192},
    "map": NEW_TEXTURE | {"identity": 0.0},
    "face": NEW_TEXTURE | {"size": 143, "crop": 128, "identity": 0.0, "cycle": 5.0},  # shapes may change
    "avatar": NEW_TEXTURE | {"identity": 0.0, "cycle": 5.0},
    "colour": NEW_TEXTURE | {"channels": (1, 3), "keep_lightness": True, "identity": 0.0},  # which needs equal channels
    # The frozen network knows photos in colour, 8 bit: it has no say here.
    "medical": NEW_TEXTURE | {"channels": (1, 1), "resize": "short", "projected": 0.0, "identity": 0.0},
}  # fmt: skip
"""Settings that go well together: for each name what differs from Train's defaults."""


def recipe(name: object) -> dict[str, Any]:
    """The row of that name. Raises BadInput for another, and names what comes near."""
    if not isinstance(name, str) or name not in RECIPES:
        hint = suggestion(str(name), RECIPES, f"there are {', '.join(RECIPES)}", count=2)
        raise BadInput(f"--recipe {name}: no such recipe; {hint}")
    return RECIPES[name]


OF_THIS_TIME = frozenset(
    ("a", "b", "out", "names", "seed", "images", "engine", "address", "workers")
)  # fmt: skip
"""Settings of Train that a run does not hand on: which folders, which cluster, what is allowed this once; and
names and seed, which are found or drawn where they are not given, and kept elsewhere in its config.json."""


def beneath(given: Mapping[str, Any]) -> dict[str, Any]:
    """What settings of Train are where they are not `given`: those of the run that lies in `out`, else of the run to
    `start` from, else the recipe's.

    Who names another recipe than the run's means that recipe, and who names epochs but no minutes means epochs.
    """
    row, held = recipe(given.get("recipe", "paper")), held_by(given.get("out", Train.out))
    if held is None and given.get("start"):
        held = held_by(given["start"])
        held = held and {name: value for name, value in held.items() if name not in ("start", "test_a", "test_b")}
    if held is None or given.get("recipe", held.get("recipe")) != held.get("recipe"):
        return row
    if "minutes" not in given and not given.keys().isdisjoint(("epochs", "decay_epochs")):
        held["minutes"] = None
    return held


def held_by(run: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The settings of a run folder that it hands on; None where there is no run (settings.read_config tells of what is
    there instead)."""
    try:
        text = Path(os.path.expanduser(run), "config.json").read_text(encoding="utf-8")
        held, kinds = dict(json.loads(text)["settings"]), get_type_hints(Train, include_extras=True)
        return {n: checked(n, value, kinds[n]) for n, value in held.items() if n in kinds and n not in OF_THIS_TIME}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def make(command: type[Settings], **given: Any) -> Settings:
    """The settings of a command, from what was given and, for Train, from the run or the recipe beneath it.

    Every value is checked against its field's annotation. Texts are taken for paths and paths for texts, lists
    for tuples, NumPy's numbers for Python's. Raises BadInput for unknown names, missing and wrong values.
    """
    what = command.__name__.lower()
    known = {field.name: field for field in fields(command)}  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            hint = suggestion(name, known, f"there are {', '.join(known)}", count=2)
            raise BadInput(f"{what} has no setting {name!r}; {hint}")
    if "recipe" in known:
        given = beneath(given) | given
    missing = [n for n, f in known.items() if n not in given and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise BadInput(f"{what} needs {' and '.join(missing)}")
    kinds = get_type_hints(command, include_extras=True)
    return command(**{name: checked(name, value, kinds[name]) for name, value in given.items()})


def checked(name: str, value: Any, annotation: Any) -> Any:
    """`value` as the annotation wants it. Raises BadInput that says what it must be."""
    try:
        return fitted(value, annotation)
    except TypeError as wrong:  # which only Python can give
        raise BadInput(f"{name}={value!r}: {wrong}") from None
    except ValueError as wrong:
        shown = str(value) if len(str(value)) < 80 else f"{str(value)[:60]}..."
        raise BadInput(f"--{name.replace('_', '-')} {shown}: {wrong}") from None


def fitted(value: Any, annotation: Any) -> Any:
    """Raises TypeError for a value of another kind, ValueError for one out of range."""
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        value = fitted(value, inner[0])
        for limits in inner[1:]:
            if isinstance(limits, Within) and value not in limits:
                raise ValueError(f"must be {limits}")
            if isinstance(limits, APath):
                value = place(value)
    elif kind in (Union, types.UnionType):
        value = None if value is None else fitted(value, next(each for each in inner if each is not types.NoneType))
    elif kind is Literal:
        if isinstance(value, bool) or value not in inner:
            near = suggestion(str(value), map(str, inner), "")
            raise TypeError("; ".join(filter(None, (f"must be {either(inner)}", near))))
        value = inner[inner.index(value)]
    elif kind is tuple:
        many = inner[-1] is ...
        if not isinstance(value, list | tuple) or not (many or len(value) == len(inner)):
            raise TypeError("must be a list" if many else f"must be {len(inner)} values")
        value = tuple(map(fitted, value, inner[:1] * len(value) if many else inner))
    elif annotation is bool:
        if not isinstance(value, bool):
            raise TypeError("must be True or False")
    elif annotation in (int, float):
        if isinstance(value, bool) or not isinstance(value, Integral if annotation is int else Real):
            raise TypeError(f"must be {'a whole number' if annotation is int else 'a number'}")
        value = annotation(value)
        if not math.isfinite(value):
            raise ValueError("must be finite")
    else:
        value = file_name(value, annotation)
    return value


def spelled(word: str, annotation: Any) -> None:
    """Raises TypeError for a word of a command line that is no number, or none of those words, where the annotation
    wants one."""
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        spelled(word, inner[0])
    elif kind in (Union, types.UnionType):
        spelled(word, next(each for each in inner if each is not types.NoneType))
    elif kind is Literal and all(isinstance(each, str) for each in inner):
        fitted(word, annotation)
    elif annotation in (int, float):
        try:
            annotation(word)
        except ValueError:
            fitted(word, annotation)  # no number: says so


def file_name(value: Any, kind: type[str] | type[Path]) -> str | Path:
    """Nearly every text here is, or goes into, the name of a file."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError("must be a text" if kind is str else "must be a path")
    text = os.fsdecode(value)
    longest = max(len(os.fsencode(part)) for part in text.split(os.sep))
    if longest > LONGEST_NAME:
        raise ValueError(f"a name of {longest} bytes is longer than that of a file can be ({LONGEST_NAME})")
    if "\0" in text:
        raise TypeError("must be without zero bytes")
    return text if kind is str else Path(place(text))


def place(text: str) -> str:
    """With ~ as the person's home folder; nothing, which would be the current folder, is no place."""
    if not text:
        raise ValueError("must not be empty")
    return os.path.expanduser(text)


def either(choices: tuple[Any, ...]) -> str:
    """a, b or c"""
    return " or ".join(filter(None, [", ".join(map(str, choices[:-1])), str(choices[-1])]))
