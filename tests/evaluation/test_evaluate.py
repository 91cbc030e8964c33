"""`viceversa evaluate` and `viceversa.evaluate`: real models, real files, every bad input a person may give."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import inception_layout
import numpy as np
import pytest
import torch
from evaluation_material import DAY, NIGHT, grid_ruler, model, model_file, pictures
from PIL import Image

import viceversa
from viceversa.cli import main
from viceversa.data.download import Download
from viceversa.data.pictures import Picture, to_pixels, to_tensor, write
from viceversa.errors import BadInput
from viceversa.evaluation import features as features_module
from viceversa.evaluation.evaluate import Images, Preparation, evaluate
from viceversa.evaluation.features import load_features
from viceversa.evaluation.scores import frechet, kid, kid_subsets, psnr, ssim, structure, structure_kept
from viceversa.model.file import Model, save_model
from viceversa.translation import tiles

HORSES = Path(__file__).parents[2] / "../shared/data/horse2zebra"
WEIGHTS = Path(__file__).parents[2] / "../shared/weights"
Folders = tuple[Path, Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICEVERSA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing answers there


@pytest.fixture
def ruler(tmp_path: Path) -> str:
    return str(grid_ruler(tmp_path / "grid.onnx"))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Day and night, of other names, counts and sizes."""
    return pictures(tmp_path / "day", 6, DAY), pictures(tmp_path / "night", 7, NIGHT, 52, seed=1, prefix="n")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["evaluate", *map(str, arguments), "--device", "cpu"])
    return code, *capsys.readouterr()


def test_folders(folders: Folders, ruler: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capsys, "--fake", folders[0], "--real", folders[1], "--features", ruler, "--json", "--precision", "fp32"
    )
    assert code == 0, err
    found = json.loads(out)
    x, y = (load_features(ruler)(map(Images("", []).load, sorted(folder.iterdir()))) for folder in folders)
    assert found["kid"] == pytest.approx(kid(x, y), rel=1e-9)
    assert found["kid_std"] == pytest.approx(kid_subsets(x, y)[1], rel=1e-9)
    assert found["frechet"] == pytest.approx(frechet(x, y), rel=1e-9)
    assert (found["features"], found["n_fake"], found["n_real"]) == ("grid.onnx", 6, 7)
    assert found["prepared"] == "own size" and "paired" not in found
    (note,) = found["notes"]
    assert "6 images are fewer than the covariance of 12 features needs" in note and "compare by KID" in note


def test_table(folders: Folders, ruler: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--fake", folders[0], "--real", folders[1], "--features", ruler)
    assert code == 0
    numbers = evaluate(fake=folders[0], real=folders[1], features=ruler)
    assert f"{numbers['kid']:.4f}" in out and f"± {numbers['kid_std']:.4f}" in out and "grid.onnx" in out
    assert str(numbers) == out.rstrip("\n") == repr(numbers)
    assert "round trip" not in out and "PSNR" not in out


def test_no_note_where_images_are_many(tmp_path: Path, ruler: str) -> None:
    a, b = pictures(tmp_path / "a", 13, DAY), pictures(tmp_path / "b", 14, DAY, seed=9)
    assert evaluate(fake=a, real=b, features=ruler)["notes"] == []


def test_model(folders: Folders, ruler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both directions, against the plain composition."""
    path = model_file(tmp_path / "model.safetensors")
    code, out, err = run(capsys, path, *folders, "--features", ruler, "--json", "--precision", "fp32")
    assert code == 0, err
    found = json.loads(out)
    assert list(found) == ["night", "day"]
    networks = model().generators
    days, nights = (
        [np.asarray(Image.open(f).resize((32, 32), Image.Resampling.BICUBIC)) for f in sorted(folder.iterdir())]
        for folder in folders
    )
    with torch.inference_mode():
        fakes = [to_pixels(networks["ab"](to_tensor(day)))[0] for day in days]
        again = [networks["ba"](to_tensor(fake)) for fake in fakes]
    vectors = load_features(ruler)
    night = found["night"]
    assert night["kid"] == pytest.approx(kid(vectors(fakes), vectors(nights)), rel=1e-3)
    assert (night["n_fake"], night["n_real"], night["prepared"]) == (6, 7, "square 32")
    inputs = [to_tensor(day) for day in days]
    l1 = np.mean([float((x - y).abs().mean()) / 2 for x, y in zip(inputs, again, strict=True)])
    assert night["round_trip"] == {"l1": pytest.approx(l1, rel=1e-3)}
    kept = np.mean([float(structure(x, to_tensor(y))) for x, y in zip(inputs, fakes, strict=True)])
    assert night["structure"] == pytest.approx(kept, abs=1e-3)
    distance = lambda v: np.mean([np.linalg.norm(p - q) for p in v for q in v if p is not q])  # noqa: E731
    ratio = distance(list(vectors(fakes))) / distance(list(vectors(days)))
    assert night["diversity"] == pytest.approx(ratio, rel=1e-3)
    assert found["day"]["n_fake"] == 7 and found["day"]["kid"] != night["kid"]
    left_out = [note for note in night["notes"] if note.startswith("LPIPS is left out")]
    assert len(left_out) == 1 and "squeezenet1_1" in left_out[0] and "--lpips FOLDER" in left_out[0]


def test_what_to_compare_with_stands_beside(folders: Folders, ruler: str, tmp_path: Path) -> None:
    """Rows of the inputs themselves, and of other pictures of the target."""
    found = evaluate(model_file(tmp_path / "model.safetensors"), *folders, features=ruler, device="cpu")
    prepared = [Images("", sorted(folder.iterdir()), Preparation(32, "square")) for folder in folders]
    x, y = (load_features(ruler)(image for _, image in images.each()) for images in prepared)
    night = found["night"]
    assert night["untranslated"]["kid"] == pytest.approx(kid(x, y), rel=1e-9)
    assert night["untranslated"]["self_similarity"] == 0 and night["untranslated"]["edges"] == 1
    assert night["another"]["kid"] == pytest.approx(kid(y[::2], y[1::2]), rel=1e-9)
    pairs = list(zip(prepared[0].each(), prepared[1].each(), strict=False))
    wanted = [structure_kept(to_tensor(a), to_tensor(b), torch.device("cpu")) for (_, a), (_, b) in pairs]
    for measure in ("self_similarity", "edges", "structure"):
        assert night["another"][measure] == pytest.approx(np.mean([row[measure] for row in wanted]), rel=1e-6)
    lines = str(found).splitlines()
    assert sum(line.split().count("untranslated") for line in lines) == 2
    assert str(found).count("others of") == 2
    assert "edges kept, higher" in str(found)
    assert "in halves" in str(evaluate(fake=folders[0], real=folders[1], features=ruler))


@pytest.mark.parametrize(("trained", "warned"), [("grid.onnx", True), ("lite0", False), (None, False)])
def test_a_ruler_that_was_trained_against_is_none(
    folders: Folders, ruler: str, tmp_path: Path, trained: str | None, warned: bool
) -> None:
    path = model_file(tmp_path / "model.safetensors", training={"features": trained} if trained else {})
    notes = evaluate(path, *folders, features=ruler, device="cpu")["night"]["notes"]
    assert any("was trained against the features grid.onnx" in note for note in notes) == warned


def test_collapse_shows_as_no_diversity(folders: Folders, ruler: str) -> None:
    made = model()
    for weight in made.generators["ab"].parameters():
        weight.data *= 0  # the same gray for every input
    found = evaluate(made, *folders, features=ruler, device="cpu")
    assert found["night"]["diversity"] == pytest.approx(0, abs=1e-6)
    assert found["day"]["diversity"] > 0.1


def test_one_direction_and_gray(folders: Folders, ruler: str) -> None:
    made = model(channels=(3, 1))
    del made.generators["ba"]
    found = evaluate(made, *folders, features=ruler, device="cpu")
    assert list(found) == ["night"]
    assert found["night"]["prepared"] == "own size" and "round_trip" not in found["night"]
    assert not any("LPIPS" in note for note in found["night"]["notes"])


def test_several_models_side_by_side(
    folders: Folders, ruler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = model_file(tmp_path / "one.safetensors"), model_file(tmp_path / "two.safetensors", seed=5)
    code, out, _ = run(capsys, one, two, *folders, "--features", ruler, "--json")
    found = json.loads(out)
    assert code == 0 and list(found) == [str(one), str(two)] and list(found[str(two)]) == ["night", "day"]
    assert found[str(one)] == evaluate(one, *folders, features=ruler, device="cpu")
    assert found[str(two)]["day"]["kid"] != found[str(one)]["day"]["kid"]
    table = str(evaluate([one, two], *folders, features=ruler))
    assert table.count("to night") == table.count("to day") == 1
    other = model_file(tmp_path / "other.safetensors", image={"size": 64, "crop": 64, "resize": "square"})
    notes = evaluate([one, other], *folders, features=ruler)[str(one)]["night"]["notes"]
    assert any("different sizes" in note and "--protocol cut" in note for note in notes)


@pytest.mark.parametrize("columns", [80, 120, 500])
def test_tables_of_several_models_can_be_read_on_a_terminal(
    folders: Folders, ruler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """What has no room beside the others stands below them: no number and no name is broken into pieces."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    models = [f"runs/day2night-{n}/model.safetensors" for n in range(5)]
    for n, name in enumerate(models):
        model_file(Path(name), seed=n)
    found = evaluate(models, *folders, features=ruler, device="cpu", precision="fp32")
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= min(columns, 120)
    words = str(found).split()
    for n, name in enumerate(models):
        assert words.count(f"runs/day2night-{n}/") == 2
        for domain in ("night", "day"):
            assert f"{found[name][domain]['kid']:.4f}" in words and f"{found[name][domain]['structure']:.3f}" in words
    assert words.count("untranslated") == 2 and words.count("others") == 2
    two = str(evaluate(models[:2], *folders, features=ruler, device="cpu")).splitlines()
    assert sum(line.startswith("KID, lower is better") for line in two) == (4 if columns == 80 else 2)


def test_run_folder_and_public_name(folders: Folders, ruler: str, tmp_path: Path) -> None:
    """The best epoch of a run is what is measured."""
    model_file(tmp_path / "run" / "model.safetensors", seed=1)
    best = model_file(tmp_path / "run" / "best.safetensors", seed=2)
    found = viceversa.evaluate(tmp_path / "run", *folders, features=ruler, device="cpu")
    assert found == evaluate(best, *folders, features=ruler, device="cpu")


def test_pairs(tmp_path: Path, ruler: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Same names, another ending and the same picture or a changed one."""
    real = pictures(tmp_path / "real", 4, DAY)
    fake = pictures(tmp_path / "fake", 4, DAY, seed=3, suffix=".bmp")
    shutil.copy(real / "002.png", fake / "002.png")
    (fake / "002.bmp").unlink()
    code, out, err = run(capsys, "--fake", fake, "--real", real, "--features", ruler, "--json")
    assert code == 0, err
    paired = json.loads(out)["paired"]
    assert list(paired["images"]) == ["000", "001", "002", "003"]
    assert paired["images"]["002"] == {"psnr": None, "ssim": 1.0}  # equal: infinite, which JSON has not
    x, y = (to_tensor(Images("", []).load(folder / name)) for folder, name in ((fake, "001.bmp"), (real, "001.png")))
    assert paired["images"]["001"] == pytest.approx({"psnr": psnr(x, y), "ssim": float(ssim(x, y))})
    assert paired["psnr"] is None
    assert paired["ssim"] == pytest.approx(np.mean([row["ssim"] for row in paired["images"].values()]))
    assert evaluate(fake=fake, real=real, features=ruler)["paired"]["psnr"] == math.inf
    assert "PSNR" in str(evaluate(fake=fake, real=real, features=ruler))


def test_numbered_files_are_no_pairs_where_one_says_so(
    tmp_path: Path, ruler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    real, fake = pictures(tmp_path / "real", 4, DAY), pictures(tmp_path / "fake", 4, DAY, seed=3)
    said = "all names are alike, so they are taken for pairs: --no-paired if that is by chance"
    given = ("--fake", fake, "--real", real, "--features", ruler)
    assert said in run(capsys, *given)[1]
    for asked in ("--paired", "--no-paired"):
        code, out, _ = run(capsys, *given, asked)
        assert code == 0 and said not in out and ("PSNR" in out) == (asked == "--paired")
    assert "paired" not in evaluate(fake=fake, real=real, features=ruler, paired=False)
    (fake / "003.png").rename(fake / "004.png")
    assert said not in evaluate(fake=fake, real=real, features=ruler)["notes"]


def test_a_folder_of_test_folders(tmp_path: Path, ruler: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As `train` and `data` take it."""
    a, b = pictures(tmp_path / "set" / "testA", 4, DAY), pictures(tmp_path / "set" / "testB", 5, NIGHT, seed=1)
    one, two = (model_file(tmp_path / f"{n}.safetensors", seed=n) for n in range(2))
    wanted = evaluate(one, a, b, features=ruler, device="cpu")
    assert evaluate(one, tmp_path / "set", features=ruler, device="cpu") == wanted
    for models in ([one], [one, two]):
        code, out, err = run(capsys, *models, tmp_path / "set", "--features", ruler, "--json")
        assert code == 0, err
        found = json.loads(out)
        assert (found if len(models) == 1 else found[str(one)]) == wanted
    assert "or one folder that holds testA and testB" in bad(capsys, one, a, "--features", ruler)


def test_pairs_of_a_list_of_paths(tmp_path: Path, ruler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute ones and relative ones."""
    monkeypatch.chdir(tmp_path)
    fake, real = pictures(tmp_path / "fake", 3, DAY), pictures(tmp_path / "real", 3, DAY, seed=3)
    Path("list.txt").write_text(f"{fake / '000.png'}\nfake/001.png\n{fake / '002.png'}\n")
    found = evaluate(fake="list.txt", real=real, features=ruler)
    assert list(found["paired"]["images"]) == ["000", "001", "002"]


def test_pairs_of_a_model(tmp_path: Path, ruler: str) -> None:
    """Registered test folders: the translation of 001 is compared with the other domain's 001."""
    day, night = pictures(tmp_path / "d", 4, DAY), pictures(tmp_path / "n", 5, NIGHT, seed=1)
    path = model_file(tmp_path / "model.safetensors")
    assert "paired" not in evaluate(path, day, night, features=ruler)["night"]  # 004 has no partner
    found = evaluate(path, day, night, features=ruler, paired=True, device="cpu", precision="fp32")
    assert list(found["night"]["paired"]["images"]) == list(found["day"]["paired"]["images"])
    with torch.inference_mode():
        x = to_tensor(np.asarray(Image.open(day / "001.png").resize((32, 32), Image.Resampling.BICUBIC)))
        y = to_tensor(np.asarray(Image.open(night / "001.png").resize((32, 32), Image.Resampling.BICUBIC)))
        wanted = psnr(to_tensor(to_pixels(model().generators["ab"](x))), y)
    assert found["night"]["paired"]["images"]["001"]["psnr"] == pytest.approx(wanted, rel=1e-3)


def deep(folder: Path, count: int, dark: int = 1) -> list[np.ndarray]:
    """A folder of gray pictures of 16 bit, in few of the 8 bit's levels, as a scan without a window."""
    folder.mkdir()
    ramps = [(np.arange(1600).reshape(40, 40, 1) * (n + 1) // dark).astype(np.uint16) for n in range(count)]
    for n, ramp in enumerate(ramps):
        write(folder / f"{n:03d}.png", Picture(ramp))
    return ramps


def test_pairs_of_16_bit_are_measured_in_16(tmp_path: Path, ruler: str) -> None:
    fake, real = deep(tmp_path / "fake", 3), deep(tmp_path / "real", 3, dark=2)
    found = evaluate(fake=tmp_path / "fake", real=tmp_path / "real", features=ruler)["paired"]["images"]
    for n in range(3):
        error = np.square((fake[n].astype(float) - real[n]) / 65535).mean()
        assert found[f"{n:03d}"]["psnr"] == pytest.approx(-10 * np.log10(error), rel=1e-5)
        assert found[f"{n:03d}"]["ssim"] == pytest.approx(float(ssim(to_tensor(fake[n]), to_tensor(real[n]))), rel=1e-3)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_16_bit_is_translated_in_16(tmp_path: Path, ruler: str, precision: str) -> None:
    """As `translate` does: by the same network, into as many levels."""
    made = model(channels=(1, 1))
    del made.generators["ba"]
    ramps, truth = deep(tmp_path / "d", 3), deep(tmp_path / "n", 3, dark=2)
    found = evaluate(made, tmp_path / "d", tmp_path / "n", features=ruler, device="cpu", precision=precision)["night"]
    translator = viceversa.load(made, device="cpu", precision=precision)
    fakes = [translator(ramp, to="night") for ramp in ramps]
    assert all(fake.dtype == np.uint16 and len(np.unique(fake)) > 300 for fake in fakes)
    for n in range(3):
        wanted = psnr(to_tensor(fakes[n]), to_tensor(truth[n]))
        assert found["paired"]["images"][f"{n:03d}"]["psnr"] == pytest.approx(wanted, rel=1e-9)
    kept = [structure_kept(to_tensor(x), to_tensor(y), torch.device("cpu")) for x, y in zip(ramps, fakes, strict=True)]
    assert found["edges"] == pytest.approx(np.mean([row["edges"] for row in kept]), rel=1e-9)


def test_what_is_changed_in_reading_is_among_the_notes(tmp_path: Path, ruler: str) -> None:
    """Each time, also where the features are known from before; and nothing of pictures that are left out."""
    day, night = pictures(tmp_path / "day", 1, DAY), pictures(tmp_path / "night", 1, NIGHT, seed=1)
    page = Image.open(day / "000.png")
    for name, side in (("s", 40), ("t", 40), ("u", 20)):
        page.resize((side, side)).save(day / f"{name}.tif", save_all=True, append_images=[page])
    for name, alpha in (("clear", 100), ("opaque", 255)):
        page.putalpha(alpha)
        page.save(night / f"{name}.png")
    several = f"pictures ({day}/s.tif and others): several pictures in one file, of which the first is taken"
    clear = f"1 picture ({night}/clear.png): transparent, laid on white"
    for fake, real in ((day, night), (night, day), (night, day)):
        notes = evaluate(fake=fake, real=real, features=ruler)["notes"]
        assert {f"3 {several}", clear} == {note for note in notes if "picture" in note}
    one_way = model(image={"crop": 32, "resize": "none"})
    del one_way.generators["ba"]
    for _ in range(2):
        notes = evaluate(one_way, day, night, features=ruler, device="cpu")["night"]["notes"]
        assert {f"2 {several}", clear} == {note for note in notes if "picture" in note}


@pytest.mark.skipif(not WEIGHTS.exists(), reason="needs ../shared/weights")
def test_lpips_from_a_folder(tmp_path: Path, ruler: str) -> None:
    day, night = pictures(tmp_path / "d", 3, DAY), pictures(tmp_path / "n", 3, NIGHT, seed=1)
    found = evaluate(model_file(tmp_path / "m.safetensors"), day, night, features=ruler, lpips=WEIGHTS)["night"]
    assert 0 < found["round_trip"]["lpips"] < 2 and 0 < found["paired"]["lpips"] < 2
    assert not any("LPIPS" in note for note in found["notes"])


def test_protocol_cut(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 x 256, Inception, resized as pytorch-fid does; with a weight file made here."""
    path = tmp_path / "cache" / "weights" / "inception.pth"
    path.parent.mkdir(parents=True)
    torch.save(inception_layout.random_weights(), path)
    made = Download("http://127.0.0.1:9/inception.pth", features_module.sha256(path))
    monkeypatch.setattr(features_module, "INCEPTION", made)
    few = [pictures(tmp_path / f"few_{name}", 2, DAY, 300, seed) for seed, name in enumerate(("horses", "zebras"))]
    found = evaluate(fake=few[0], real=few[1], protocol="cut", device="cpu")
    assert (found["features"], found["prepared"]) == ("inception-legacy", "square 256")
    x, y = (
        [np.asarray(Image.open(f).resize((256, 256), Image.Resampling.BICUBIC)) for f in sorted(folder.iterdir())]
        for folder in few
    )
    vectors = load_features("inception")
    assert found["frechet"] == pytest.approx(frechet(vectors(x), vectors(y)), rel=1e-6)
    for wrong in ({"features": "lite0"}, {"resizing": "clean"}):
        with pytest.raises(BadInput, match="--protocol cut means --features inception --resizing legacy"):
            evaluate(fake=few[0], real=few[1], protocol="cut", **wrong)


@pytest.mark.skipif(not HORSES.exists(), reason="needs ../shared/data/horse2zebra")
def test_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line on real images, with the offline ruler (EfficientNet-Lite0): horses and zebras, and the
    zebras that a published generator made of the horses.
    """
    for fake, wanted_kid, wanted_frechet in (("testA", 0.2224, 221.8), ("published_fakeB", 0.0716, 112.9)):
        code, out, _ = run(capsys, "--fake", HORSES / fake, "--real", HORSES / "testB", "--features", "lite0", "--json")
        found = json.loads(out)
        assert code == 0 and found["features"] == "lite0" and (found["n_fake"], found["n_real"]) == (120, 140)
        assert found["kid"] == pytest.approx(wanted_kid, abs=0.001) and 0.002 < found["kid_std"] < 0.02
        assert found["frechet"] == pytest.approx(wanted_frechet, abs=0.5)


def bad(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a person is told, after how far it came; exit code 2, nothing on standard output."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, ""), err
    *before, line = err.strip().splitlines()
    assert all(earlier.startswith(("reading ", "translating ")) for earlier in before)
    assert line.startswith("viceversa: ")
    return line


def test_bad_folders(folders: Folders, ruler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day, night = folders
    (tmp_path / "empty").mkdir()
    assert "empty folder" in bad(capsys, "--fake", tmp_path / "empty", "--real", night, "--features", ruler)
    assert "no such file or folder" in bad(capsys, "--fake", day, "--real", tmp_path / "absent", "--features", ruler)
    one = pictures(tmp_path / "one", 1, DAY)
    assert f"{one}: one image only" in bad(capsys, "--fake", one, "--real", night, "--features", ruler)
    assert f"{one}: one image only" in bad(capsys, "--fake", day, "--real", one, "--features", ruler)
    for n in range(6):
        (night / f"n00{n}.png").write_bytes((night / "n006.png").read_bytes()[:200])
    told = bad(capsys, "--fake", day, "--real", night, "--features", ruler)
    assert f"{night}: 1 of 7 images can be read: {night}/n000.png: broken" in told and "and 1 more" in told


def test_broken_images_are_left_out_named_and_counted(folders: Folders, ruler: str, tmp_path: Path) -> None:
    """What is left is measured as if the others had not been there."""
    day, night = folders
    path = model_file(tmp_path / "model.safetensors")
    without = evaluate(path, day, night, features=ruler, device="cpu")
    (day / "zz.png").write_bytes((day / "001.png").read_bytes()[:200])
    (night / "aa.png").symlink_to(tmp_path / "nowhere.png")
    (night / "photo.dng").write_bytes(b"of another kind")
    found = evaluate(path, day, night, features=ruler, device="cpu")
    for domain in ("night", "day"):
        assert found[domain]["kid"] == without[domain]["kid"] and found[domain]["n_fake"] == without[domain]["n_fake"]
        said = "\n".join(found[domain]["notes"])
        assert f"{day}: 1 of 7 images left out: {day}/zz.png: broken" in said
        assert f"{night}: 1 of 8 images left out: {night}/aa.png: No such file" in said
        assert f"{night}: files of other kinds are left out: 1 .dng" in said
    assert "zz.png" in str(found)


def test_images_that_are_too_small_are_left_out(folders: Folders, ruler: str, tmp_path: Path) -> None:
    day, night = folders
    path = model_file(tmp_path / "model.safetensors", image={"size": 36, "crop": 36, "resize": "none"})
    pictures(day, 7, DAY, side=30, prefix="small")
    (note,) = (
        n for n in evaluate(path, day, night, features=ruler)["night"]["notes"] if "left out" in n and "day" in n
    )
    assert "7 of 13 images left out" in note and "30x30 pixels are smaller than the crop of 36" in note
    assert note.endswith("and 2 more")


def test_pairs_with_a_broken_image(tmp_path: Path, ruler: str) -> None:
    real, fake = pictures(tmp_path / "real", 4, DAY), pictures(tmp_path / "fake", 4, DAY, seed=3)
    (real / "001.png").write_bytes(b"no image")
    (fake / "002.png").write_bytes(b"no image")
    found = evaluate(fake=fake, real=real, features=ruler)
    assert list(found["paired"]["images"]) == ["000", "003"] and (found["n_fake"], found["n_real"]) == (3, 3)


def test_a_home_that_cannot_be_written(
    folders: Folders, ruler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an optional measure needs the cache: it is left out, with what to do."""
    (tmp_path / "file").write_text("in place of a folder")
    monkeypatch.setenv("VICEVERSA_CACHE", str(tmp_path / "file" / "cache"))
    notes = evaluate(model_file(tmp_path / "model.safetensors"), *folders, features=ruler)["night"]["notes"]
    (note,) = (note for note in notes if note.startswith("LPIPS is left out"))
    assert "cannot be written" in note and "set VICEVERSA_CACHE to a folder that can" in note


def test_large_pictures_go_by_tiles_and_give_the_same(
    tmp_path: Path, ruler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, night = pictures(tmp_path / "d", 2, DAY, 200), pictures(tmp_path / "n", 2, NIGHT, 200, seed=1)
    monkeypatch.setattr(tiles, "TILE", 1 << 12)
    made = model()
    need = tiles.whole_bytes(made.generators["ab"].spec, 200, 200, torch.float32, torch.device("cpu"))
    whole, small = (viceversa.load(made, device="cpu", memory=memory) for memory in (need, need - 1))
    asked: list[object] = []
    choose = tiles.choose
    monkeypatch.setattr(tiles, "choose", lambda *args: asked.append(choose(*args)) or asked[-1])
    first = evaluate(whole, day, night, features=ruler, device="cpu", precision="fp32")
    assert asked and not any(asked)
    second = evaluate(small, day, night, features=ruler, device="cpu", precision="fp32")
    assert any(asked)
    for measure in ("kid", "frechet", "structure"):
        assert second["night"][measure] == pytest.approx(first["night"][measure], rel=1e-2)


def test_names_that_no_terminal_can_print(folders: Folders, ruler: str, tmp_path: Path) -> None:
    """Also where standard output is ASCII, strictly."""
    day, night = folders
    name = os.fsencode(day) + b"/\xc4\xe3\xba\xc3.png"
    os.rename(day / "001.png", name)
    with open(name, "r+b") as file:
        file.truncate(200)
    for encoding in ("ascii:strict", "utf-8:strict", "cp1252:strict"):
        command = [
            sys.executable,
            "-m",
            "viceversa",
            "evaluate",
            "--fake",
            day,
            "--real",
            night,
            "--features",
            ruler,
        ]
        done = subprocess.run(
            [*command, "--device", "cpu"], env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert rb"1 of 6 images left out" in done.stdout and rb"\udcc4\udce3" in done.stdout


def test_bad_pairs(tmp_path: Path, ruler: str, capsys: pytest.CaptureFixture[str]) -> None:
    day, night = pictures(tmp_path / "a", 3, DAY), pictures(tmp_path / "b", 3, NIGHT, prefix="night")
    told = bad(capsys, "--fake", day, "--real", night, "--paired", "--features", ruler)
    assert "no image of" in told and "'000'" in told and "'night000'" in told
    large = pictures(tmp_path / "c", 3, NIGHT, side=48)
    told = bad(capsys, "--fake", day, "--real", large, "--paired", "--features", ruler)
    assert "(48x48) and its pair (40x40) are not of one size" in told
    found = evaluate(fake=day, real=large, features=ruler)  # not asked for: no error
    assert "paired" not in found and any("not of one size" in note for note in found["notes"])


def test_bad_features(folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = ("--fake", folders[0], "--real", folders[1], "--features")
    (tmp_path / "text.onnx").write_text("no network")
    assert "no ONNX network" in bad(capsys, *pair, tmp_path / "text.onnx")
    assert "no such file" in bad(capsys, *pair, tmp_path / "absent.onnx")
    assert "no such features; use inception, lite0, squeezenet" in bad(capsys, *pair, "vgg")


def test_bad_inception(folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "cache" / "weights" / "pt_inception-2015-12-05-6726825d.pth"
    told = bad(capsys, "--fake", folders[0], "--real", folders[1])
    assert f"at {wrong}, or use --features lite0" in told
    wrong.parent.mkdir(parents=True, exist_ok=True)
    wrong.write_bytes(b"something else")
    assert "wrong checksum" in bad(capsys, "--fake", folders[0], "--real", folders[1])


def test_bad_numbers(folders: Folders, ruler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that makes none of a picture, and one whose weights are none."""
    made = model(image={"size": 32, "crop": 32, "resize": "square"})
    ruined = Model({"ab": made.generators["ab"]}, made.domains, made.info)
    for value, words in ((3e38, "day/000.png: the model makes no finite numbers of it"), (math.nan, "are no numbers")):
        next(iter(ruined.generators["ab"].parameters())).data[:] = value
        save_model(tmp_path / "ruined.safetensors", ruined)
        assert words in bad(capsys, tmp_path / "ruined.safetensors", *folders, "--features", ruler)


def test_bad_use(folders: Folders, ruler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model_file(tmp_path / "model.safetensors")
    for arguments in ((), (path, folders[0]), ("--fake", folders[0]), (path, *folders, "--fake", "x", "--real", "y"),
                      (path, *folders, "--fake", "x")):  # fmt: skip
        assert "give MODEL and a folder of test images" in bad(capsys, *arguments)
    assert "no model" in bad(capsys, tmp_path / "absent.safetensors", *folders, "--features", ruler)
    assert "given twice" in bad(capsys, path, path, *folders, "--features", ruler)
    assert "wrong order: day then night" in bad(capsys, path, *reversed(folders), "--features", ruler)
    assert "--lpips" in bad(capsys, path, *folders, "--features", ruler, "--lpips", tmp_path)
    with pytest.raises(BadInput, match="give MODEL"):
        evaluate(path, folders[0])
    with pytest.raises(BadInput, match="evaluate has no setting 'feature'"):
        evaluate(path, *folders, feature="lite0")
    small = model_file(tmp_path / "small.safetensors", image={"size": 64, "crop": 64, "resize": "none"})
    assert "day" in bad(capsys, small, *folders, "--features", ruler)
