"""Small models, pictures and rulers for the tests of scoring and evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from PIL import Image

from viceversa.model.file import Model, save_model
from viceversa.model.networks import Generator, initialise

DAY, NIGHT = (90, 140, 200), (30, 30, 60)


def pictures(
    folder: Path, count: int, colour: tuple[int, int, int], side: int = 40, seed: int = 0, prefix: str = "",
    suffix: str = ".png",
) -> Path:  # fmt: skip
    """A folder of smooth noise around a colour."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        coarse = (np.array(colour) + random.integers(-30, 55, (6, 6, 3))).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        image.save(folder / f"{prefix}{number:03d}{suffix}")
    return folder


def model(seed: int = 0, channels: tuple[int, int] = (3, 3), **info: Any) -> Model:
    """Two tiny generators with weights large enough that outputs vary with inputs."""
    random = torch.Generator().manual_seed(seed)
    networks = {}
    for direction, (c_in, c_out) in (("ab", channels), ("ba", channels[::-1])):
        network = Generator(width=4, blocks=1, channels_in=c_in, channels_out=c_out).build()
        initialise(network, random)
        for weight in network.parameters():
            weight.data *= 12
        networks[direction] = network.eval()
    return Model(networks, ("day", "night"), info)


def model_file(path: Path, seed: int = 0, **more: Any) -> Path:
    info = {"image": {"size": 36, "crop": 32, "resize": "square"}} | more
    save_model(path, model(seed, **info))
    return path


def grid_ruler(path: Path) -> Path:
    """An ONNX file: images of 32 x 32, 12 features, the means of a grid of 2 x 2."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "grid", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 12])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path
