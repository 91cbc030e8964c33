"""One direction of a model as a file for other programs: ONNX, or torch.export (`viceversa export`).

The file takes float32 images (B, C, H, W) in [-1, 1] and gives the same; batch, height and width are free,
height and width multiples of what its metadata says. It is the network: what `viceversa translate` does around it is
told in the metadata, too (`halved_from`: the short side of photos that are halved first). From onnxruntime:

    session = onnxruntime.InferenceSession("night.onnx")
    session.get_modelmeta().custom_metadata_map     # source, target, value_range, multiple, smallest, ...
    image = numpy.float32(pixels) / 127.5 - 1       # pixels: uint8 (H, W, 3)
    (night,) = session.run(None, {"image": image.transpose(2, 0, 1)[None]})

From PyTorch, without viceversa:

    facts = {"viceversa.json": ""}
    translate = torch.export.load("night.pt2", extra_files=facts).module()
    night = translate(image)

With `half`, weights and arithmetic are float16; images stay float32 in and out, so that one file can take
the other's place, and instance norm takes its statistics in float32. A file of a generator that sees holds the
frozen network, too: it needs nothing else.
"""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config

from .. import __version__
from ..config import Export
from ..errors import BadInput, Failed
from ..files import replacing
from ..model.file import Model, load_model, resolve
from ..model.frozen import Frozen, looked_at
from ..model.networks import Generator
from ..translation.translator import Translator, with_lightness

Translate = Callable[[Tensor], Tensor]
LIMIT, HALF_LIMIT = 1e-3, 3e-2
"""How far an exported file may be from the model, of a range of 2."""
OPSET = 20


def command_export(wanted: Export) -> int:
    """`viceversa export`: write the file, and say how near the model it is."""
    if wanted.out.exists() and not wanted.overwrite:
        raise BadInput(f"{wanted.out} exists: choose another --out, or --overwrite it")
    model = load_model(resolve(wanted.model))
    direction = model.direction(wanted.to)
    difference = export(model, direction, wanted.out, wanted.half)
    facts = describe_file(model, direction, wanted.half)
    print(f"{facts['source']} -> {facts['target']}: any batch, sides in multiples of {facts['multiple']}")
    print(f'input "image": float32 (B, {facts["channels_in"]}, H, W) in {facts["value_range"]} (docs/serve.md)')
    if "halved_from" in facts:
        print(
            f"photos with a short side of {facts['halved_from']} px and more are halved first by viceversa translate: "
            "the file does not do it, so do it before (docs/serve.md)"
        )
    print(f"largest difference from the model, at three sizes: {difference:.1e}")
    print(f"wrote {wanted.out} ({wanted.out.stat().st_size / 1e6:.1f} MB)")
    return 0


def export(model: Model, direction: str, out: Path, half: bool = False) -> float:
    """Write generators[direction] to `out` (.onnx or .pt2); returns the largest difference from the model.

    The file is run at three sizes: by onnxruntime, or loaded by torch. Raises BadInput for another ending or
    a missing library; Failed, and leaves no file, when it differs by more than 1e-3 (half: 3e-2).
    """
    if out.suffix not in (".onnx", ".pt2"):
        raise BadInput(f"{out}: the ending chooses the format: .onnx or .pt2")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if out.suffix == ".onnx" and missing:
        raise BadInput(f"{out} needs {', '.join(missing)}: pip install 'viceversa[export]'")
    spec, facts = model.spec(direction), describe_file(model, direction, half)
    write, read = (write_onnx, read_onnx) if out.suffix == ".onnx" else (write_pt2, read_pt2)
    with replacing(out) as temporary:
        with quiet(), any_size(), torch.no_grad():
            write(Whole(model, direction, half).eval(), spec, facts, temporary)
        difference = largest_difference(Whole(model, direction).eval(), spec, read(temporary))
        limit = HALF_LIMIT if half else LIMIT
        if not difference <= limit:  # NaN, too
            raise Failed(f"{out} differs from the model by {difference:.1e}, more than {limit:.0e}: not kept")
    return difference


class Whole(nn.Module):
    """All that turns a float32 image into its translation: the generator, the frozen network if it sees, and the
    lightness that a picture keeps."""

    def __init__(self, model: Model, direction: str, half: bool = False):
        super().__init__()
        self.dtype = torch.float16 if half else torch.float32
        self.generator = copy.deepcopy(model.generators[direction]).cpu().requires_grad_(False).to(self.dtype)
        spec = model.spec(direction)
        self.keeps_lightness = model.keeps_lightness(direction)
        self.frozen = Frozen().to(self.dtype) if spec.sees else None
        self.carries = spec.kind == "pyramid"
        """Detail goes past the network, in float32."""

    def forward(self, image: Tensor) -> Tensor:
        seen = () if self.frozen is None else (self.frozen.seen(looked_at(image).to(self.dtype)),)
        made: Tensor = self.generator(image if self.carries else image.to(self.dtype), *seen).float()
        return with_lightness(made, image) if self.keeps_lightness else made


def describe_file(model: Model, direction: str, half: bool) -> dict[str, str]:
    """What a program must know to use the file; written into it."""
    spec = model.spec(direction)
    source, target = model.ends(direction)
    halved_from = Translator(model, device="cpu").how(direction, None, 1.0).halved_from
    return {
        "viceversa": __version__,
        "domains": json.dumps(model.domains),
        "source": source,
        "target": target,
        "layout": "batch, channels, height, width; float32",
        "value_range": "[-1, 1]",
        "channels_in": str(spec.channels_in),
        "channels_out": str(spec.channels_out),
        "multiple": str(spec.multiple),
        "smallest": str(spec.smallest),
        "arithmetic": "float16" if half else "float32",
        **({"halved_from": str(halved_from)} if halved_from else {}),
    }


def write_onnx(network: nn.Module, spec: Generator, facts: dict[str, str], path: Path) -> None:
    """The file's metadata_props hold the facts."""
    program = torch.onnx.export(
        network, (example(spec),), dynamo=True, verbose=False, opset_version=OPSET, input_names=["image"],
        output_names=["translation"], dynamic_shapes=dynamic_shapes(spec),
    )  # fmt: skip
    assert program is not None
    program.model.metadata_props.update(facts)
    program.save(path)


def read_onnx(path: Path) -> Translate:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 3  # errors
    session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def write_pt2(network: nn.Module, spec: Generator, facts: dict[str, str], path: Path) -> None:
    """The file's viceversa.json holds the facts."""
    program = torch.export.export(network, (example(spec),), dynamic_shapes=dynamic_shapes(spec))
    torch.export.save(program, path, extra_files={"viceversa.json": json.dumps(facts)})


def read_pt2(path: Path) -> Translate:
    return torch.export.load(path).module()


def example(spec: Generator) -> Tensor:
    """An input to trace with: no side and no batch of 1, which would be taken for constants."""
    return torch.zeros(2, spec.channels_in, 3 * spec.multiple, 4 * spec.multiple)


def dynamic_shapes(spec: Generator) -> tuple[dict[int, Any]]:
    """Any batch; height and width any multiples, from the smallest that the network takes."""
    fewest = spec.smallest // spec.multiple
    height, width = (torch.export.Dim(name, min=fewest) for name in ("h", "w"))
    return ({0: torch.export.Dim("batch"), 2: spec.multiple * height, 3: spec.multiple * width},)


def largest_difference(network: nn.Module, spec: Generator, translate: Translate) -> float:
    """Over images of noise at three sizes, of which the first may be the smallest; NaN when either gives NaN."""
    random = torch.Generator().manual_seed(0)
    side = max(64, spec.smallest)
    differences = []
    for batch, height, width in ((1, side, side), (1, side, 2 * side), (2, 2 * side, side)):
        image = torch.rand(batch, spec.channels_in, height, width, generator=random) * 2 - 1
        with torch.no_grad():
            differences.append((translate(image) - network(image)).abs().max())
    return float(torch.stack(differences).max())


@contextmanager
def quiet() -> Iterator[None]:
    """Without the log lines and warnings that torch's exporters write about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def any_size() -> Any:
    """Keeps torch.export from taking a size of 1 for a constant.

    A U-Net's innermost feature map is 1x1 at its smallest input, which would else be the only input, or be
    shut out: either way a U-Net 256 could not be exported for both 256 px and 512. (vLLM leans on this setting,
    too; torch offers no public one.)
    """
    return _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
