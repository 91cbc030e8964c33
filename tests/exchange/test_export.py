"""Exported files translate as the model does, at any size, in onnxruntime and in a process without viceversa."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import viceversa
from viceversa.cli import main
from viceversa.errors import BadInput, Failed
from viceversa.exchange.export import export
from viceversa.exchange.importing import import_weights
from viceversa.model.file import Model, save_model
from viceversa.model.frozen import Frozen
from viceversa.model.networks import Generator

OF_PHOTO = {"guided": True, "log_light": True, "recolours": True, "sees": True}
SPECS = {
    "resnet": Generator(width=3, blocks=1),
    "affine nearest": Generator(width=2, blocks=1, norm="instance-affine", upsample="nearest", channels_in=1),
    "batch blur": Generator(width=2, blocks=1, norm="batch", antialias=True, channels_out=1),
    "unet": Generator(kind="unet", width=2, halvings=5),
    "pyramid sees": Generator(kind="pyramid", levels=2, width=2, blocks=1, upsample="nearest", **OF_PHOTO),
    "gray pyramid": Generator(kind="pyramid", levels=1, guided=True, sees=True, width=2, blocks=1, channels_in=1),
    "resnet sees": Generator(width=2, blocks=1, sees=True, upsample="nearest"),
}


def build(spec):
    """Random weights everywhere, running statistics and affine norms included."""
    network = spec.build().eval().requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not name.endswith("filt"):
            drawn = torch.rand(value.shape, generator=random)
            value.copy_(drawn + 0.5 if value.ndim < 2 and not name.endswith("bias") else (drawn - 0.5) * 0.5)
    return network


def model_of(network):
    return Model({"ab": network}, ("day", "night"))


def images(spec, *sides):
    """Noise of (batch, height, width), the sides counted in the network's multiple."""
    batch, height, width = sides
    shape = (batch, spec.channels_in, height * spec.multiple, width * spec.multiple)
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(sides))) * 2 - 1


SIZES = {
    "resnet": [(1, 2, 2), (1, 13, 7), (3, 8, 9)],
    "unet": [(1, 1, 1), (1, 2, 3), (3, 4, 1)],
    "pyramid": [(1, 2, 2), (1, 11, 3), (2, 10, 10), (1, 10, 16)],  # 10: 160 px, as the frozen network looks at it
}


def translated(network, image):
    """As the model itself does."""
    with torch.no_grad():
        return network(image, *(Frozen().see(image) if network.spec.sees else ()))


def open_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def open_pt2(path):
    return torch.export.load(path).module()


@pytest.fixture(autouse=True)
def without_torchs_trace():
    """torch.export writes of every symbol that it meets, for whom collects logs; pytest does, for minutes."""
    logger = logging.getLogger("torch.__trace")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


def assert_same(translate, network, tolerance=1e-3, sizes=None):
    for size in sizes or SIZES[network.spec.kind]:
        image = images(network.spec, *size)
        expected = translated(network, image)
        with torch.no_grad():
            given = translate(image)
        assert given.dtype == torch.float32 and given.shape == expected.shape
        assert (given - expected).abs().max() < tolerance, size


@pytest.mark.parametrize("name", ["affine nearest", "batch blur", "unet", "pyramid sees"])  # resnet: by the command
def test_onnx_translates_as_the_model_at_any_size(tmp_path, name):
    network = build(SPECS[name])
    assert export(model_of(network), "ab", tmp_path / "night.onnx") < 1e-3
    assert_same(open_onnx(tmp_path / "night.onnx"), network)


@pytest.mark.parametrize("name", ["resnet", "affine nearest", "batch blur", "pyramid sees"])
def test_pt2_translates_as_the_model_at_any_size(tmp_path, name):
    network = build(SPECS[name])
    assert export(model_of(network), "ab", tmp_path / "night.pt2") < 1e-3
    assert_same(open_pt2(tmp_path / "night.pt2"), network)


@pytest.mark.parametrize("ending, opened", [("onnx", open_onnx), ("pt2", open_pt2)])
def test_what_keeps_its_lightness_keeps_it_in_other_programs(tmp_path, ending, opened):
    network = build(Generator(width=2, blocks=1, channels_in=1))
    model = Model({"ab": network}, ("gray", "colour"), {"image": {"keep_lightness": True}})
    assert export(model, "ab", tmp_path / f"colour.{ending}") < 1e-3
    image = images(network.spec, 1, 8, 9)
    ours = viceversa.load(model, precision="fp32", device="cpu")(image, to="colour")
    made = opened(tmp_path / f"colour.{ending}")(image)
    assert (made - ours).abs().max() < 1e-3 and (made - network(image)).abs().max() > 0.1


def onnx_weights(path):
    import onnx

    half, whole = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    kinds = {half: torch.float16, whole: torch.float32}
    return {kinds[t.data_type] for t in onnx.load(path).graph.initializer if t.data_type in kinds and len(t.dims) > 1}


def pt2_weights(path):
    return {value.dtype for value in torch.export.load(path).state_dict.values() if value.ndim > 1}


@pytest.mark.parametrize(
    ("name", "ending", "opened", "weights"),
    [
        ("resnet", "onnx", open_onnx, onnx_weights),
        ("batch blur", "pt2", open_pt2, pt2_weights),
        ("unet", "pt2", open_pt2, pt2_weights),
        ("gray pyramid", "pt2", open_pt2, pt2_weights),
    ],
)
def test_half_is_near_the_model_with_weights_of_16_bits(tmp_path, name, ending, opened, weights):
    network, out = build(SPECS[name]), tmp_path / f"half.{ending}"
    assert export(model_of(network), "ab", out, half=True) < 3e-2
    assert_same(opened(out), network, 3e-2, SIZES[network.spec.kind][1:])
    assert weights(out) == {torch.float16}
    assert next(network.parameters()).dtype == torch.float32  # the model itself stays as it was


FRESH = """
import json, sys
import torch
path, tensors = sys.argv[1:]
from safetensors.torch import load_file
cases = load_file(tensors)
facts = {"viceversa.json": ""}
translate = torch.export.load(path, extra_files=facts).module()
for n in range(len(cases) // 2):
    difference = (translate(cases[f"input.{n}"]) - cases[f"output.{n}"]).abs().max()
    assert difference < 1e-3, (n, difference)
assert "viceversa" not in sys.modules
print(facts["viceversa.json"])
"""


def facts_in_a_fresh_process(path, network, sizes, folder):
    """Run the .pt2 against the model's own outputs in a process that has only torch; its facts."""
    cases = {}
    for n, size in enumerate(sizes):
        cases[f"input.{n}"] = images(network.spec, *size)
        cases[f"output.{n}"] = translated(network, cases[f"input.{n}"]).contiguous()
    save_file(cases, folder / "cases.safetensors")
    command = [sys.executable, "-c", FRESH, str(path), str(folder / "cases.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("name", "multiple"), [("unet", "32"), ("resnet sees", "4")])
def test_a_pt2_runs_in_a_fresh_process_and_says_what_it_is(tmp_path, name, multiple):
    network = build(SPECS[name])
    export(model_of(network), "ab", tmp_path / "night.pt2")
    facts = facts_in_a_fresh_process(tmp_path / "night.pt2", network, SIZES[network.spec.kind], tmp_path)
    assert (facts["source"], facts["target"], facts["multiple"]) == ("day", "night", multiple)


def test_the_generator_of_vintagify_in_onnxruntime_and_in_a_fresh_process(tmp_path, vintagify):
    model = import_weights([vintagify], ("photo", "vintage"))
    network = model.generators["ab"]
    sizes = [(1, 16, 16), (1, 24, 19), (2, 12, 20)]
    for ending in ("onnx", "pt2"):
        assert export(model, "ab", tmp_path / f"vintage.{ending}") < 1e-3
    assert_same(open_onnx(tmp_path / "vintage.onnx"), network, sizes=sizes)
    assert facts_in_a_fresh_process(tmp_path / "vintage.pt2", network, sizes, tmp_path)["target"] == "vintage"


def test_the_command_writes_one_direction_says_how_near_it_is_and_nothing_else(tmp_path, capfd):
    import onnxruntime

    there, back = build(SPECS["resnet"]), build(Generator(width=2, blocks=2))
    model, out = tmp_path / "day2night.safetensors", tmp_path / "day.onnx"
    save_model(model, Model({"ab": there, "ba": back}, ("day", "night")))
    command = ["export", str(model), "--to", "day", "-o", str(out)]
    assert main(command) == 0
    said = capfd.readouterr()
    assert said.err == ""
    first, takes, difference, wrote = said.out.splitlines()
    assert first == "night -> day: any batch, sides in multiples of 4"
    assert takes.startswith('input "image": float32 (B, 3, H, W) in [-1, 1]')
    assert float(difference.removeprefix("largest difference from the model, at three sizes: ")) < 1e-3
    assert wrote.startswith(f"wrote {out} (")
    assert_same(open_onnx(out), back)

    session = onnxruntime.InferenceSession(out)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["domains"]) == ["day", "night"]
    assert {k: facts[k] for k in ("source", "target", "value_range", "multiple", "smallest", "arithmetic")} == {
        "source": "night",
        "target": "day",
        "value_range": "[-1, 1]",
        "multiple": "4",
        "smallest": "8",
        "arithmetic": "float32",
    }
    assert session.get_inputs()[0].shape == ["batch", 3, "4*h", "4*w"]

    before = out.read_bytes()
    assert main(command) == 2
    assert "exists" in capfd.readouterr().err and out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["day.onnx", "day2night.safetensors"]


def test_large_photos_are_translated_as_by_the_command_by_the_code_of_the_docs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = build(Generator(kind="pyramid", levels=1, width=2, blocks=1))
    trained = {"image": {"size": 24, "resize": "short"}}  # so the photo is halved twice
    save_model(Path("model.safetensors"), Model({"ab": network}, ("day", "night"), trained))
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).resize((128, 96), Image.Resampling.BICUBIC).save("photo.jpg", quality=95)
    image = torch.from_numpy(np.array(Image.open("photo.jpg"))).permute(2, 0, 1)[None] / 127.5 - 1
    expected = viceversa.load("model.safetensors", precision="fp32", device="cpu")(image)
    assert (translated(network, image) - expected).abs().max() > 0.1

    docs = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    for ending, code in zip(("onnx", "pt2"), re.findall(r"```python\n(.*?)```", docs, re.DOTALL), strict=True):
        assert main(["export", "model.safetensors", "--to", "night", "-o", f"night.{ending}"]) == 0
        assert "photos with a short side of 48 px and more are halved first" in capsys.readouterr().out
        names = {"image": image}
        exec(code, names)
        night = torch.as_tensor(names["night"]).view_as(expected).clamp(-1, 1)
        assert (night - expected).abs().max() < 1e-3
    levels = (expected[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(np.asarray(Image.open("night.png")) - levels).max() < 0.6


def test_a_file_that_differs_too_much_is_not_kept(tmp_path):
    network = build(SPECS["resnet"])
    network.model[1].weight.mul_(1e6)  # beyond float16; instance norm undoes it in float32
    out = tmp_path / "night.pt2"
    out.write_text("an earlier one")
    with pytest.raises(Failed, match="differs from the model by nan"):
        export(model_of(network), "ab", out, half=True)
    assert [path.name for path in tmp_path.iterdir()] == ["night.pt2"] and out.read_text() == "an earlier one"


def test_another_ending_or_a_missing_library_is_told_before_the_work(tmp_path, monkeypatch):
    model = model_of(build(SPECS["resnet"]))
    with pytest.raises(BadInput, match=r"\.onnx or \.pt2"):
        export(model, "ab", tmp_path / "night.pb")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BadInput, match=r"needs onnxruntime: pip install 'viceversa\[export\]'"):
        export(model, "ab", tmp_path / "night.onnx")
    assert not any(tmp_path.iterdir())
