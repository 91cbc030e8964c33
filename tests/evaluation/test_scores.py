"""The scorer of training: disturbs nothing, and gives what `evaluate` gives for the model file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_material import DAY, NIGHT, grid_ruler, model, model_file, pictures

from viceversa.data.pictures import Picture, to_pixels, to_tensor, write
from viceversa.data.store import load_test
from viceversa.device import has_bf16
from viceversa.errors import BadInput
from viceversa.evaluation.evaluate import Images, Preparation, evaluate, reference
from viceversa.evaluation.features import load_features
from viceversa.evaluation.scores import Scorer, frechet, kid, translated
from viceversa.model.file import load_model
from viceversa.translation.translator import Translator

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICEVERSA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return pictures(tmp_path / "day", 6, DAY), pictures(tmp_path / "night", 7, NIGHT, side=52, seed=1)


def scorer(folders: tuple[Path, Path], ruler: Path, kind: str = "kid", dtype: torch.dtype = torch.float32) -> Scorer:
    images = [load_test(sorted(f.iterdir()), channels=3, resize="square", crop=32, count=99) for f in folders]
    return Scorer(*images, features=str(ruler), kind=kind, device=CPU, dtype=dtype)


def test_score_is_what_it_says(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Against the plain composition: load, translate, round, compare."""
    ruler = grid_ruler(tmp_path / "grid.onnx")
    made = model()
    found = scorer(folders, ruler).score(**made.generators)
    features = load_features(str(ruler))
    real, fake = {}, {}
    for domain, folder in zip("ab", folders, strict=True):
        images = load_test(sorted(folder.iterdir()), channels=3, resize="square", crop=32, count=99)
        real[domain] = features(images)
        network = made.generators["ab" if domain == "a" else "ba"]
        with torch.inference_mode():
            fake["b" if domain == "a" else "a"] = features(to_pixels(network(to_tensor(i)))[0] for i in images)
    assert found["a"] == pytest.approx(kid(fake["a"], real["a"]), rel=1e-4)
    assert found["b"] == pytest.approx(kid(fake["b"], real["b"]), rel=1e-4)
    assert found["mean"] == pytest.approx((found["a"] + found["b"]) / 2)
    assert (found["kind"], found["features"]) == ("kid", "grid.onnx")
    assert found["a"] > 1e-3 and found["a"] != pytest.approx(found["b"])
    by_frechet = scorer(folders, ruler, "frechet").score(**made.generators)
    assert by_frechet["b"] == pytest.approx(frechet(fake["b"], real["b"]), rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluate_of_the_model_file_gives_the_score_again(
    folders: tuple[Path, Path], tmp_path: Path, precision: str
) -> None:
    if precision == "bf16" and not has_bf16(CPU):
        pytest.skip("this chip has no bf16")
    ruler = grid_ruler(tmp_path / "grid.onnx")
    path = model_file(tmp_path / "best.safetensors", seed=3)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    # as while training: fp32 weights, channels last, in training mode
    training = {d: g.train().to(memory_format=torch.channels_last) for d, g in load_model(path).generators.items()}
    for kind in ("kid", "frechet"):
        score = scorer(folders, ruler, kind, dtype).score(**training)
        result = evaluate(path, *folders, features=str(ruler), device="cpu", precision=precision)
        assert result["day"][kind] == pytest.approx(score["a"], rel=1e-9)
        assert result["night"][kind] == pytest.approx(score["b"], rel=1e-9)
    assert result["night"]["prepared"] == "square 32"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pictures_of_16_bit_are_scored_as_they_are_evaluated(tmp_path: Path, dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and not has_bf16(CPU):
        pytest.skip("this chip has no bf16")
    random = np.random.default_rng(0)
    folders = tmp_path / "day", tmp_path / "night"
    for folder in folders:
        folder.mkdir()
        for n in range(3):
            levels = random.integers(0, 65535, (40, 40, 3), np.uint16)
            write(folder / f"{folder.name}{n}.png", Picture(levels))
    ruler, path = grid_ruler(tmp_path / "grid.onnx"), model_file(tmp_path / "best.safetensors", seed=3)
    score = scorer(folders, ruler, "kid", dtype).score(**load_model(path).generators)
    precision = "fp32" if dtype == torch.float32 else "auto"
    result = evaluate(path, *folders, features=str(ruler), device="cpu", precision=precision)
    assert result["day"]["kid"] == pytest.approx(score["a"], rel=1e-9)
    assert result["night"]["kid"] == pytest.approx(score["b"], rel=1e-9)


def test_disturbs_nothing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    made = model()
    for network in made.generators.values():
        network.train()
        network.requires_grad_(True)
    before = {d: {k: v.clone() for k, v in g.state_dict().items()} for d, g in made.generators.items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    counted = scorer(folders, grid_ruler(tmp_path / "grid.onnx"))
    first = counted.score(**made.generators)
    assert counted.score(**made.generators) == first
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()
    for direction, network in made.generators.items():
        assert all(module.training for module in network.modules())
        assert all(p.requires_grad and p.grad is None for p in network.parameters())
        assert all(torch.equal(v, before[direction][k]) for k, v in network.state_dict().items())


def test_needs_two_images(tmp_path: Path) -> None:
    one = [np.zeros((32, 32, 3), np.uint8)]
    with pytest.raises(BadInput, match="at least two test images of each domain, not 1 and 2"):
        Scorer(one, one * 2, features=str(grid_ruler(tmp_path / "g.onnx")), kind="kid", device=CPU, dtype=torch.float32)


def test_test_photos_are_not_held_at_full_size(tmp_path: Path) -> None:
    """However many and large: what is kept of each is its crop, in an array of its own."""
    paths = sorted(pictures(tmp_path / "large", 5, DAY, side=600).iterdir())
    for resize in ("square", "short", "none"):
        for taken in load_test(paths, channels=3, resize=resize, crop=32, count=99):
            assert taken.shape == (32, 32, 3) and taken.base is None


def test_sixteen_bit_images_that_hold_eight_are_scored_alike(tmp_path: Path) -> None:
    ruler = str(grid_ruler(tmp_path / "grid.onnx"))
    eight = [np.random.default_rng(n).integers(0, 256, (32, 32, 3), dtype=np.uint8) for n in range(3)]
    sixteen = [image.astype(np.uint16) * 257 for image in eight]
    made = [Scorer(i, i, features=ruler, kind="kid", device=CPU, dtype=torch.float32) for i in (eight, sixteen)]
    found, deep = (scorer.score(**model().generators) for scorer in made)
    for which in ("a", "b", "mean"):
        assert deep[which] == pytest.approx(found[which], rel=1e-5)  # of some pixels, the last bit rounds otherwise


@pytest.mark.parametrize(("height", "width"), [(32, 32), (30, 41), (9, 8), (3, 50), (1, 1)])
def test_translates_any_size_as_translate_does(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    translator = Translator(model(), device="cpu", precision="fp32")
    found = translated(translator, "night", pixels, "a picture")
    assert found.dtype == np.uint8 and np.array_equal(found, translator(pixels, to="night"))


def test_features_of_a_reference_are_kept(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = load_features(str(grid_ruler(tmp_path / "grid.onnx")))
    day, night = (sorted(folder.iterdir()) for folder in folders)
    read: list[Path] = []
    load = Images.load
    monkeypatch.setattr(Images, "load", lambda images, path: read.append(path) or load(images, path))

    first = reference(features, Images("day", day))
    assert len(read) == 6
    np.testing.assert_array_equal(reference(features, Images("day", day)), first)
    moved = [path.rename(path.with_name(f"moved_{path.name}")) for path in day]
    np.testing.assert_array_equal(reference(features, Images("day", moved)), first)
    assert len(read) == 6  # what the files hold counts, not their names
    reference(features, Images("day", moved, Preparation(32, "square")))
    reference(features, Images("night", night))
    assert len(read) == 6 + 6 + 7
    pictures(folders[0], 1, NIGHT, prefix="moved_")  # one image now holds something else
    assert not np.array_equal(reference(features, Images("day", moved)), first)

    (kept, *_) = (tmp_path / "cache" / "references").iterdir()
    for file in (tmp_path / "cache" / "references").iterdir():
        file.write_bytes(kept.read_bytes()[:50])  # a spoilt cache is computed again
    assert reference(features, Images("night", night)).shape == (7, 12)


def test_a_cache_that_cannot_be_written(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in place of the folder")
    features = load_features(str(grid_ruler(tmp_path / "grid.onnx")))
    assert reference(features, Images("day", sorted(folders[0].iterdir()))).shape == (6, 12)


def test_images_are_loaded_as_they_were_in_training(tmp_path: Path) -> None:
    (path,) = pictures(tmp_path, 1, DAY, side=50).iterdir()
    assert Images("", [path]).load(path).shape == (50, 50, 3)
    assert Images("", [path], channels=1).load(path).shape == (50, 50, 1)
    assert Images("", [path], Preparation(32, "square")).load(path).shape == (32, 32, 3)
