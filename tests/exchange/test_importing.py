"""The authors' weights, and those of relatives, become models that translate as the originals do."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from viceversa.cli import main
from viceversa.errors import BadInput
from viceversa.exchange.importing import import_weights
from viceversa.model.file import load_model
from viceversa.model.networks import Generator, PatchDiscriminator, PixelDiscriminator

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("horse", "zebra")


# The originals, built here from PyTorch's own layers: what a user trained, with any of the usual variations.


class BlurDown(nn.Module):
    """CUT's Downsample: the kernel [1 2 1] is two averages of neighbours."""

    def __init__(self, channels):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", torch.outer(row, row).expand(channels, 1, 3, 3).clone())

    def forward(self, x):
        x = F.pad(x, (1, 1, 1, 1), "reflect")
        return F.avg_pool2d(F.avg_pool2d(x, 2, 1), 2, 1)[:, :, ::2, ::2]


class BlurUp(nn.Module):
    """CUT's Upsample: the kernel [1 3 3 1] is bilinear interpolation."""

    def __init__(self, channels):
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
        self.register_buffer("filt", torch.outer(row, row).expand(channels, 1, 4, 4).clone())

    def forward(self, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Block(nn.Module):
    def __init__(self, channels, norm, bias, dropout, name):
        super().__init__()
        drop = [nn.Dropout(0.5)] if dropout else []
        layers = [
            *(nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm(channels), nn.ReLU()),
            *drop,
            *(nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm(channels)),
        ]
        self.add_module(name, nn.Sequential(*layers))
        self.inner = name

    def forward(self, x):
        return x + getattr(self, self.inner)(x)


class Resnet(nn.Module):
    def __init__(
        self,
        channels=(3, 3),
        w=3,
        blocks=2,
        norm=nn.InstanceNorm2d,
        bias=True,
        dropout=False,
        name="conv_block",
        resample="strided",
    ):
        super().__init__()

        def down(n):
            stride, blur = (1, [BlurDown(2 * n)]) if resample == "blur" else (2, [])
            return [nn.Conv2d(n, 2 * n, 3, stride, 1, bias=bias), norm(2 * n), nn.ReLU(), *blur]

        def up(n):
            if resample == "blur":
                layers = [BlurUp(2 * n), nn.Conv2d(2 * n, n, 3, 1, 1, bias=bias)]
            elif resample == "nearest":
                layers = [nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(2 * n, n, 3, bias=bias)]
            else:
                layers = [nn.ConvTranspose2d(2 * n, n, 3, 2, 1, output_padding=1, bias=bias)]
            return [*layers, norm(n), nn.ReLU()]

        self.model = nn.Sequential(
            *(nn.ReflectionPad2d(3), nn.Conv2d(channels[0], w, 7, bias=bias), norm(w), nn.ReLU()),
            *(*down(w), *down(2 * w)),
            *(Block(4 * w, norm, bias, dropout, name) for _ in range(blocks)),
            *(*up(2 * w), *up(w)),
            *(nn.ReflectionPad2d(3), nn.Conv2d(w, channels[1], 7), nn.Tanh()),
        )

    def forward(self, x):
        return self.model(x)


class UnetLevel(nn.Module):
    def __init__(self, outer, inner, inside, norm, bias):
        super().__init__()
        lower = [norm(inner), inside] if inside else []
        doubled = 2 * inner if inside else inner
        self.model = nn.Sequential(
            *(nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=bias), *lower),
            *(nn.ReLU(), nn.ConvTranspose2d(doubled, outer, 4, 2, 1, bias=bias), norm(outer), nn.Dropout(0.5)),
        )

    def forward(self, x):
        return torch.cat([x, self.model(x)], 1)


class Unet(nn.Module):
    def __init__(self, channels=(3, 3), w=2, norm=nn.BatchNorm2d, bias=False):
        super().__init__()
        level = None
        for outer, inner in [(8, 8), (4, 8), (2, 4), (1, 2)]:
            level = UnetLevel(outer * w, inner * w, level, norm, bias)
        self.model = nn.Module()
        self.model.model = nn.Sequential(
            *(nn.Conv2d(channels[0], w, 4, 2, 1, bias=bias), level),
            *(nn.ReLU(), nn.ConvTranspose2d(2 * w, channels[1], 4, 2, 1), nn.Tanh()),
        )

    def forward(self, x):
        return self.model.model(x)


def affine(channels):
    return nn.InstanceNorm2d(channels, affine=True)


def tracked(channels):
    return nn.InstanceNorm2d(channels, track_running_stats=True)


def original(network, seed=0):
    """Random weights everywhere, running statistics included; ready to translate."""
    random = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("filt") or not value.is_floating_point():
            continue
        drawn = torch.rand(value.shape, generator=random)
        value.copy_(drawn + 0.5 if value.ndim == 1 and not name.endswith("bias") else (drawn - 0.5) * 0.5)
    return network.eval().requires_grad_(False)


def images(channels=3):
    return torch.rand(2, channels, 32, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def same(imported, network, tolerance=1e-5):
    x = images(imported.spec.channels_in)
    with torch.inference_mode():
        return (imported(x) - network(x)).abs().max() < tolerance


def imported(tmp_path, weights, name="latest_net_G_A.pth"):
    torch.save(weights, tmp_path / name)
    return import_weights([tmp_path / name], NAMES)


def refused(tmp_path, weights, match):
    with pytest.raises(BadInput, match=match) as caught:
        imported(tmp_path, weights)
    assert "\n" not in str(caught.value) and "latest_net_G_A.pth" in str(caught.value)


VARIATIONS = {
    "plain": (lambda: Resnet(), Generator(width=3, blocks=2)),
    "six blocks": (lambda: Resnet(w=2, blocks=6), Generator(width=2, blocks=6)),
    "dropout": (lambda: Resnet(dropout=True), Generator(width=3, blocks=2)),
    "gray to colour": (lambda: Resnet((1, 3)), Generator(width=3, blocks=2, channels_in=1)),
    "affine": (lambda: Resnet(norm=affine, name="block"), Generator(width=3, blocks=2, norm="instance-affine")),
    "batch norm": (
        lambda: Resnet(norm=nn.BatchNorm2d, bias=False),
        Generator(width=3, blocks=2, norm="batch"),
    ),
    "batch norm and biases": (lambda: Resnet(norm=nn.BatchNorm2d), Generator(width=3, blocks=2, norm="batch")),
    "blur": (lambda: Resnet(resample="blur"), Generator(width=3, blocks=2, antialias=True)),
    "nearest": (lambda: Resnet(resample="nearest"), Generator(width=3, blocks=2, upsample="nearest")),
    "no biases": (lambda: Resnet(bias=False), Generator(width=3, blocks=2)),
    "U-Net, batch norm": (lambda: Unet(), Generator(kind="unet", width=2, halvings=5, norm="batch")),
    "U-Net, instance norm": (
        lambda: Unet((3, 1), norm=nn.InstanceNorm2d, bias=True),
        Generator(kind="unet", width=2, halvings=5, channels_out=1),
    ),
}
DOUBTFUL = {"nearest", "no biases"}


@pytest.mark.parametrize("name", VARIATIONS)
def test_a_generator_is_read_off_its_weights_and_translates_as_the_original(tmp_path, name):
    make, spec = VARIATIONS[name]
    network = original(make())
    model = imported(tmp_path, network.state_dict())
    assert model.generators["ab"].spec == spec
    assert same(model.generators["ab"], network)
    assert bool(model.info["imported"]["notes"]) == (name in DOUBTFUL)


def test_running_statistics_of_instance_norm_are_left_out_as_its_authors_do(tmp_path):
    old = original(Resnet(norm=tracked))
    assert any(key.endswith("running_mean") for key in old.state_dict())
    plain = Resnet()
    plain.load_state_dict({k: v for k, v in old.state_dict().items() if k in plain.state_dict()})
    assert same(imported(tmp_path, old.state_dict()).generators["ab"], plain.eval())


@pytest.mark.parametrize("file", ["resnet_9blocks", "resnet_6blocks", "unet_128", "unet_256"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_the_golden_generators(tmp_path, file, ending):
    golden = load_file(GOLDEN / "networks.safetensors")
    begin = f"{file}.weight."
    weights = {k.removeprefix(begin): v for k, v in golden.items() if k.startswith(begin)}  # alphabetical
    path = tmp_path / f"net_G{ending}"
    torch.save(weights, path) if ending == ".pth" else save_file(weights, path)
    network = import_weights([path], NAMES).generators["ab"]
    with torch.inference_mode():
        output = network(golden[f"{file}.input"].float())
    assert (output - golden[f"{file}.output"]).abs().max() < 1e-4


def test_the_generator_of_vintagify(tmp_path, vintagify, capsys):
    out = tmp_path / "vintage.safetensors"
    assert main(["import", str(vintagify), "--names", "photo", "vintage", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "photo -> vintage: ResNet, 9 blocks, width 64, 11.4 M parameters, instance-affine norm" in said
    golden = load_file(GOLDEN / "vintagify.safetensors")
    with torch.inference_mode():
        output = load_model(out).generators["ab"](golden["input"])
    assert (output - golden["output"]).abs().max() < 1e-4


def test_two_files_are_the_two_directions(tmp_path, capsys):
    there, back = original(Resnet((3, 1)), 1), original(Resnet((1, 3), blocks=1), 2)
    files = [tmp_path / "latest_net_G_A.pth", tmp_path / "latest_net_G_B.pth"]
    torch.save(nn.DataParallel(there).state_dict(), files[0])  # names begin with "module."
    torch.save(back.state_dict(), files[1])
    out = tmp_path / "horse2zebra.safetensors"
    command = ["import", *map(str, files), "--names", *NAMES, "-o", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "horse -> zebra: ResNet, 2 blocks" in said and "zebra -> horse: ResNet, 1 block," in said
    model = load_model(out)
    assert model.domains == NAMES
    assert same(model.generators["ab"], there) and same(model.generators["ba"], back)

    before = out.read_bytes()
    assert main(command) == 2
    assert "exists" in capsys.readouterr().err and out.read_bytes() == before
    assert main([*command, "--overwrite"]) == 0


def prefixed(name, network):
    return {f"{name}.{key}": value for key, value in network.state_dict().items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda g, d: {"state_dict": g.state_dict(), "epoch": 200},
        lambda g, d: {"netG_A": g.state_dict()},
        lambda g, d: {"generator": g.state_dict(), "discriminator": d.state_dict()},
        lambda g, d: {"model": {"G": g.state_dict()}, "optimizer": torch.optim.Adam(d.parameters()).state_dict()},
        lambda g, d: {"state_dict": prefixed("netG", g) | prefixed("netD", d)},
        lambda g, d: prefixed("netD", d) | prefixed("netG", g),
    ],
)
def test_one_generator_in_a_whole_checkpoint_is_found(tmp_path, wrap):
    network, judge = original(Resnet()), PatchDiscriminator(width=2)
    stepped = torch.optim.Adam(judge.parameters())
    judge(images()).sum().backward()
    stepped.step()
    assert same(imported(tmp_path, wrap(network, judge)).generators["ab"], network)


def test_several_generators_in_one_file_are_named(tmp_path):
    both = {"netG_A": Resnet().state_dict(), "netG_B": Resnet().state_dict()}
    refused(tmp_path, both, r"several generators \(netG_A, netG_B\)")


class Relative(nn.Module):
    """Modules with names instead of numbers, and nested otherwise."""

    def __init__(self):
        super().__init__()
        parts = list(Resnet().model)
        self.stem = nn.Sequential(*parts[:4])
        self.encoder = nn.Sequential(nn.Sequential(*parts[4:7]), nn.Sequential(*parts[7:10]))
        self.body = nn.Sequential(*parts[10:12])
        self.decoder = nn.Sequential(*parts[12:18])
        self.colour = nn.Sequential(*parts[18:])

    def forward(self, x):
        return self.colour(self.decoder(self.body(self.encoder(self.stem(x)))))


def test_a_relative_with_other_names_is_imported_with_a_note_on_what_names_cannot_tell(tmp_path):
    network = original(Relative())
    model = imported(tmp_path, network.state_dict())
    assert same(model.generators["ab"], network)
    (note,) = model.info["imported"]["notes"]
    assert "encoder.0.0 is model.4" in note and "padding may differ" in note


# What is refused, in one line that says why.


@pytest.mark.parametrize("judge", [PatchDiscriminator(width=2), PixelDiscriminator(width=2)])
def test_a_discriminator_is_told_from_a_generator(tmp_path, judge):
    refused(tmp_path, judge.state_dict(), "this is a discriminator")


def changed(network, **changes):
    weights = OrderedDict(network.state_dict())
    for key, value in changes.items():
        weights[key.replace("__", ".")] = value
    return weights


def without(network, *names):
    return {k: v for k, v in network.state_dict().items() if not k.startswith(names)}


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (without(Resnet(), "model.7"), r"layer conv model\.10\.conv_block\.1 \(12, 12, 3, 3\), where conv model\.7"),
        (without(Resnet(), "model.12"), r"layer conv model\.15 \(6, 3, 3, 3\), where conv model\.12"),
        (without(Resnet(), "model.19"), r"no layer conv model\.19 .* which a generator like this"),
        (Resnet(blocks=0).state_dict(), "no residual blocks"),
        (changed(Resnet(), extra__weight=torch.zeros(4, 4, 1, 1)), r"layer conv extra .* is too many"),
        (changed(Resnet(), model__4__weight=torch.zeros(6, 3, 5, 5)), r"model\.4 \(6, 3, 5, 5\), where conv model\.4"),
        (changed(Resnet(), model__4__bias=torch.zeros(5)), r"model\.4\.bias is \(5,\): \(6,\) was expected"),
        (changed(Resnet(), model__4__bias=torch.full((6,), torch.nan)), r"model\.4\.bias holds NaN"),
        (changed(Resnet(), head__weight=torch.zeros(9, 9)), r"head\.weight \(9, 9\) belongs to no layer"),
        (changed(Resnet(), model__1__weight_orig=torch.zeros(1)), "model.1.weight_orig"),
        (without(Resnet(resample="blur"), "model.3", "model.7.f"), "anti-aliased"),
        (without(Resnet(norm=nn.BatchNorm2d), "model.2.running_mean"), r"model\.2 .* has no running_mean"),
        ({"conv.weight": torch.zeros(64, 3, 3, 3)}, r"\(64, 3, 3, 3\): expected 7x7 \(ResNet\) or 4x4"),
        ({"fc.weight": torch.zeros(4, 4)}, "no network weights"),
        ({"epoch": 3}, "no network weights"),
        ([1, 2], "no network weights"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_explained(tmp_path, weights, match):
    refused(tmp_path, weights, match)


class Trap:
    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return os.mkdir, (self.file,)


@pytest.mark.parametrize("protocol", ["zip", "legacy", "bare"])
def test_a_pickle_that_is_not_plain_weights_is_refused_and_never_run(tmp_path, protocol):
    sprung = tmp_path / "sprung"
    weights = {"model.1.weight": torch.zeros(3, 3, 7, 7), "x": Trap(sprung)}
    file = tmp_path / "latest_net_G_A.pth"
    if protocol == "bare":
        file.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    else:
        torch.save(weights, file, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises(BadInput, match=r"not plain weights \(it wants to run .*mkdir.*\): refused"):
        import_weights([file], NAMES)
    assert not sprung.exists()
    torch.load(file, weights_only=False) if protocol != "bare" else pickle.loads(file.read_bytes())  # noqa: S301
    assert sprung.exists()  # the trap was a real one


def test_a_whole_module_is_refused(tmp_path):
    refused(tmp_path, nn.Sequential(nn.Conv2d(3, 3, 7)), r"not plain weights.*save a state_dict")


@pytest.mark.parametrize("damage", ["empty", "text", "half", "half safetensors", "zip"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    file = tmp_path / "net.pth"
    if damage == "half safetensors":
        save_file(Resnet().state_dict(), file)
    else:
        torch.save(Resnet().state_dict(), file)
    whole = file.read_bytes()
    file.write_bytes({"empty": b"", "text": b"hello there\n" * 9}.get(damage, whole[: len(whole) // 2]))
    if damage == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("readme.txt", "no weights")
    with pytest.raises(BadInput, match=r"net\.pth"):
        import_weights([file], NAMES)


def test_the_folder_of_their_checkpoints(tmp_path, capsys):
    folder, out = tmp_path / "horse_cyclegan", tmp_path / "m.safetensors"
    folder.mkdir()
    torch.save(Resnet().state_dict(), folder / "195_net_G_B.pth")
    torch.save(Resnet().state_dict(), folder / "latest_net_G.pth")
    assert main(["import", str(folder), "--names", *NAMES, "-o", str(out)]) == 0
    assert list(load_model(out).generators) == ["ab"]
    for name, network in (("A", Resnet((3, 1))), ("B", Resnet((1, 3)))):
        torch.save(network.state_dict(), folder / f"latest_net_G_{name}.pth")
    assert main(["import", str(folder), "--names", *NAMES, "-o", str(out), "--overwrite"]) == 0
    assert load_model(out).info["imported"]["files"] == ["latest_net_G_A.pth", "latest_net_G_B.pth"]
    assert load_model(out).generators["ab"].spec.channels_out == 1
    for path in folder.glob("latest_*"):
        path.unlink()
    for given in ([folder], [folder, folder / "195_net_G_B.pth"]):
        capsys.readouterr()
        assert main(["import", *map(str, given), "--names", *NAMES, "-o", str(out), "--overwrite"]) == 2
        said = capsys.readouterr().err
        assert "(it holds 195_net_G_B.pth): name the files, from horse to zebra first" in said


def test_files_are_counted_before_what_exists_is_told(tmp_path, capsys):
    (tmp_path / "m.safetensors").write_text("mine")
    assert main(["import", "-o", str(tmp_path / "m.safetensors")]) == 2
    assert "0 files: give the generator from a to b" in capsys.readouterr().err


def test_files_that_are_missing_too_many_no_pair_or_models_already(tmp_path, capsys):
    file, gray, out = tmp_path / "a.pth", tmp_path / "gray.pth", tmp_path / "m.safetensors"
    torch.save(Resnet().state_dict(), file)
    torch.save(Resnet((3, 1)).state_dict(), gray)
    for arguments, words in [
        ([tmp_path / "none.pth"], "no file"),
        ([file, file, file], "3 files"),
        ([gray, gray], "they are no pair"),
        ([file, "--names", "same", "same"], "two names"),
        ([file, "-o", "model.pth"], "ends in .safetensors"),
        ([file, "-o", out], None),
        ([out, "-o", tmp_path / "n.safetensors"], "a model of viceversa already"),
    ]:
        code = main(["import", *map(str, arguments)])
        assert code == (2 if words else 0)
        assert (words or "") in capsys.readouterr().err
    assert not Path("model.safetensors").exists()
