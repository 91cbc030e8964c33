"""The authors' .pth files, and those of close relatives, become a model file (`viceversa import`).

A state dict names its parameters but not its network, so the network is read off their order and shapes: the
layers with parameters, in order, must be those of one of our generators, whatever they are called. That
covers pytorch-CycleGAN-and-pix2pix of all years (ResNet, U-Net; with dropout, with DataParallel's "module.",
with the running statistics that instance norm kept before PyTorch 0.4, which its authors drop too), CUT's
anti-aliased ResNet, and relatives with other names, affine instance norm or batch norm. Batch norm translates
with its running statistics. Nothing is unpickled but tensors and plain containers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import Import
from ..data.folders import checked_names
from ..errors import BadInput
from ..model.file import Model, below, read_weights, save_model
from ..model.networks import Generator, Norm, ResnetGenerator, UnetGenerator, describe
from ..model.pyramid import PyramidGenerator
from ..terminal import words

Weights = dict[str, Tensor]
Network = ResnetGenerator | UnetGenerator | PyramidGenerator
LEAVES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked", "filt"}
ZERO_BY_DEFAULT = {("conv", "bias"), ("norm", "num_batches_tracked")}
"""What a file may lack: the authors leave out biases where batch norm would undo them."""


def command_import(wanted: Import) -> int:
    """`viceversa import`: write the model file, and say what was read."""
    if wanted.out.suffix != ".safetensors":
        raise BadInput(f"--out {wanted.out}: a model file ends in .safetensors")
    files = weight_files(list(wanted.files), wanted.names)
    if wanted.out.exists() and not wanted.overwrite:
        raise BadInput(f"{wanted.out} exists: choose another --out, or --overwrite it")
    model = import_weights(files, wanted.names)
    save_model(wanted.out, model)
    for direction, network in model.generators.items():
        print(f"{' -> '.join(model.ends(direction))}: {describe(network)}, {network.spec.norm} norm")
    for note in model.info["imported"]["notes"]:
        print(f"note: {note}")
    print(f"wrote {wanted.out}")
    return 0


def import_weights(files: list[Path], names: tuple[str, str]) -> Model:
    """One or two files of generator weights, or the authors' folder -> a model. The first translates names[0] to
    names[1].

    What could not be made sure of is in `info["imported"]["notes"]`. Raises BadInput, in one line, for a file
    that is not plain weights, or whose weights are of another kind of network.
    """
    files = weight_files(files, names)
    names = checked_names(names)
    generators: dict[str, Network] = {}
    notes: list[str] = []
    for direction, file in zip(("ab", "ba"), files, strict=False):
        try:
            generators[direction], layers = find_generator(read_weights(file))
        except Unfit as wrong:
            raise BadInput(f"{file}: {wrong}") from None
        notes += [f"{file.name}: {doubt}" for doubt in doubts(generators[direction], layers)]
    specs = [network.spec for network in generators.values()]
    if len(specs) == 2 and (
        (specs[0].channels_in, specs[0].channels_out) != (specs[1].channels_out, specs[1].channels_in)
    ):
        there, back = (f"{g.channels_in} to {g.channels_out}" for g in specs)
        raise BadInput(f"{files[0]} goes from {there} channels, {files[1]} from {back}: they are no pair")
    return Model(dict(generators), names, {"imported": {"files": [file.name for file in files], "notes": notes}})


def weight_files(given: list[Path], names: tuple[str, str]) -> list[Path]:
    """The files, or those in the folder (theirs: checkpoints/NAME) that is given. Raises BadInput."""
    if len(given) not in (1, 2):
        raise BadInput(
            f"{words(len(given), 'file')}: give the generator from {names[0]} to {names[1]}, then the one back"
        )
    folder = next((path for path in given if path.is_dir()), None)
    if folder is None:
        return given
    for both in (("latest_net_G_A.pth", "latest_net_G_B.pth"), ("latest_net_G.pth",)):
        files = [folder / name for name in both]
        if len(given) == 1 and all(file.is_file() for file in files):
            return files
    held = sorted(path.name for path in folder.glob("*net_G*.pth"))
    there = f"it holds {', '.join(held[:6])}{', ...' * (len(held) > 6)}" if held else "it holds no *net_G*.pth"
    raise BadInput(f"{folder} is a folder without latest_net_G_A.pth and latest_net_G_B.pth ({there}): name the files, "
                   f"from {names[0]} to {names[1]} first")  # fmt: skip


class Unfit(BadInput):
    """These weights are of no generator that we know; says which layer, and what was expected."""


class IsDiscriminator(Unfit):
    """These weights judge images; they make none."""


@dataclass(frozen=True)
class Layer:
    """A module with parameters: what it is called in the state dict, and its tensors."""

    name: str
    tensors: Weights

    @property
    def kind(self) -> Literal["conv", "norm", "blur"]:
        if "filt" in self.tensors:
            return "blur"
        return "conv" if self.tensors["weight"].ndim == 4 else "norm"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensors["filt" if self.kind == "blur" else "weight"].shape)

    def __str__(self) -> str:
        return f"{self.kind} {self.name or '(unnamed)'} {self.shape}"


def layers_of(weights: Weights) -> list[Layer]:
    """A state dict as a list of layers, in the order in which the network holds them.

    Where a file is in alphabetical order that is restored: numbers in names are compared as numbers; names keep
    the order in which they first appear.
    """

    def begins(key: str) -> Iterator[str]:
        return accumulate(key.split("."), "{}.{}".format)

    first: dict[str, int] = {}
    for begin in (begin for key in weights for begin in begins(key)):
        first.setdefault(begin, len(first))

    def place(key: str) -> list[int]:
        parts = zip(key.split("."), begins(key), strict=True)
        return [int(part) if part.isdecimal() else first[begin] for part, begin in parts]

    grouped: dict[str, Weights] = {}
    for key in sorted(weights, key=place):
        name, _, leaf = key.rpartition(".")
        if leaf not in LEAVES or (leaf == "weight" and weights[key].ndim not in (1, 4)):
            raise Unfit(f"{key} {tuple(weights[key].shape)} belongs to no layer of these generators")
        grouped.setdefault(name, {})[leaf] = weights[key]
    # Statistics alone are those that instance norm without parameters used to keep, and never used.
    return [Layer(name, held) for name, held in grouped.items() if held.keys() & {"weight", "filt"}]


def find_generator(held: Any) -> tuple[Network, list[Layer]]:
    """The one generator in what a file holds, which may be a whole checkpoint, and its layers in the file."""
    wrong: list[Unfit] = []
    found = list(generators_in(held, "", wrong))
    if len(found) > 1:
        names = ", ".join(name for name, _, _ in found)
        raise Unfit(f"it holds several generators ({names}): save each in a file of its own")
    if found:
        return found[0][1:]
    raise wrong[0] if wrong else Unfit("it holds no network weights (no dictionary of tensors was found)")


def generators_in(held: Any, name: str, wrong: list[Unfit]) -> Iterator[tuple[str, Network, list[Layer]]]:
    """Generators in nested dictionaries, or side by side in one; what does not fit is told in `wrong`."""
    if not isinstance(held, dict):
        return
    parts = {str(key): value for key, value in held.items()}
    if not all(isinstance(value, Tensor) for value in held.values()):
        for key, value in parts.items():
            yield from generators_in(value, f"{name}.{key}".strip("."), wrong)
        return
    if not any(key.endswith("weight") and value.ndim == 4 for key, value in parts.items()):
        return  # moments of an optimizer, or no network
    try:
        layers = layers_of(parts)
        yield name, build(recognise(layers), layers), layers
    except Unfit as error:
        wrong.append(error)
        networks = sorted({key.partition(".")[0] for key in parts})
        if len(networks) > 1 and not isinstance(error, IsDiscriminator):
            others: list[Unfit] = []
            found = [each for key in networks for each in generators_in(below(parts, key), key, others)]
            judges = sum(isinstance(other, IsDiscriminator) for other in others)
            if len(found) + judges == len(networks):  # else these are parts of one network, not several
                yield from found


def recognise(layers: list[Layer]) -> Generator:
    """The generator that these layers belong to, by number and shape of the convolutions."""
    shapes = [layer.shape for layer in layers if layer.kind == "conv"]
    if not shapes:
        raise Unfit("it holds no convolutions")
    if shapes[-1][0] == 1 and shapes[0][-1] in (1, 4):
        raise IsDiscriminator("this is a discriminator (it ends in one channel of scores): give a generator")
    width, channels_in = shapes[0][:2]
    norms = [layer for layer in layers if layer.kind == "norm"]
    norm: Norm = "instance"
    if norms:
        norm = "batch" if any("running_mean" in layer.tensors for layer in norms) else "instance-affine"

    if shapes[0][-2:] == (7, 7) and len(shapes) >= 6:
        blurs = sum(layer.kind == "blur" for layer in layers)
        if blurs not in (0, 4):
            raise Unfit(f"{blurs} of its 4 changes of size are anti-aliased: only all or none is supported")
        blocks = shapes.count((4 * width, 4 * width, 3, 3)) // 2
        if not blocks:
            raise Unfit(f"it has no residual blocks (3x3 convolutions of {4 * width} channels)")
        return Generator(
            channels_in=channels_in,
            channels_out=[shape[0] for shape in shapes if shape[-1] == 7][-1],
            width=width,
            blocks=blocks,
            upsample="nearest" if shapes[-3][:2] == (2 * width, 4 * width) and not blurs else "transposed",
            norm=norm,
            antialias=blurs == 4,
        )
    if shapes[0][-2:] == (4, 4) and len(shapes) >= 4:
        return Generator(
            kind="unet",
            channels_in=channels_in,
            channels_out=shapes[-1][1],  # a transposed convolution: (in, out, 4, 4)
            width=width,
            halvings=len(shapes) // 2,
            norm=norm,
        )
    raise Unfit(f"the first of its {len(shapes)} convolutions is {shapes[0]}: expected 7x7 (ResNet) or 4x4 (U-Net)")


def build(spec: Generator, layers: list[Layer]) -> Network:
    """The generator with these weights. Raises Unfit at the first layer that does not fit."""
    with torch.device("meta"):
        network = spec.build()
    what = describe(network)
    weights: Weights = {}
    for ours, theirs in zip_longest(layers_of(network.state_dict()), layers):
        if ours is None:
            raise Unfit(f"layer {theirs} is too many for what the rest looks like ({what})")
        if theirs is None:
            raise Unfit(f"no layer {ours} in it, which a generator like this ({what}) has")
        if (ours.kind, ours.shape) != (theirs.kind, theirs.shape):
            raise Unfit(f"layer {theirs}, where {ours} was expected ({what})")
        for leaf, blank in ours.tensors.items():
            if leaf not in theirs.tensors and (ours.kind, leaf) not in ZERO_BY_DEFAULT:
                raise Unfit(f"layer {theirs} has no {leaf}, which a generator like this ({what}) has")
            value = theirs.tensors.get(leaf, torch.zeros(blank.shape))
            if value.shape != blank.shape:
                raise Unfit(f"{theirs.name}.{leaf} is {tuple(value.shape)}: {tuple(blank.shape)} was expected")
            if not value.isfinite().all():
                raise Unfit(f"{theirs.name}.{leaf} holds NaN or infinity: this model broke while it was trained")
            weights[f"{ours.name}.{leaf}"] = value.to(blank.dtype).contiguous().clone()
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def doubts(network: Network, layers: list[Layer]) -> Iterator[str]:
    """What weights cannot tell, and how it was taken: padding, kind of upsampling, norms without weights."""
    spec = network.spec
    for ours, theirs in zip(layers_of(network.state_dict()), layers, strict=True):
        here, there = ([int(n) for n in re.findall(r"\d+", layer.name)] for layer in (ours, theirs))
        dropout = len(here) == 2 and here[1] > 3 and there == [here[0], here[1] + 1]
        if here != there and not dropout:
            yield (
                f"its layers are counted otherwise than the authors' ({theirs.name} is {ours.name}), so "
                "padding may differ: compare a translation with one of the original"
            )
            break
    if spec.kind == "resnet" and spec.upsample == "nearest":
        yield "it upsamples without weights: taken as nearest neighbour, then reflection and a convolution"
    if spec.norm == "instance" and "bias" not in layers[0].tensors:
        yield "neither norms nor biases are in it: taken as instance norm"
