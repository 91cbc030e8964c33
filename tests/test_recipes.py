"""Each recipe starts and runs two epochs on small images made for it, and the commands of its page run as they stand.

In this process, one page after the other: what a command needs and nobody has made yet is made here, small.
"""

import json
import re
import shlex
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import viceversa
from viceversa import config
from viceversa.cli import main
from viceversa.data.pictures import read
from viceversa.model.file import bundled, load_model

PAGES = Path(__file__).parent.parent / "docs" / "recipes"
NAMES = sorted(path.stem for path in PAGES.glob("*.md") if path.stem != "index")
SMALL = "--epochs 1 --decay-epochs 1 --width 4 --blocks 1 --device cpu --seed 1 --log none".split()
SIZES = {1: ("--size", "40", "--crop", "32"), 2: ("--size", "72", "--crop", "64")}
"""By the levels of a pyramid, which halve the crop."""
FILMS = (".mp4", ".mov")


def commands(name):
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("viceversa ")]


def picture(seed, channels=3, light=1.0):
    """Shapes and noise, 56 x 48."""
    random = np.random.default_rng(seed)
    small = Image.fromarray((random.random((6, 7, 3)) * 255 * light).astype(np.uint8)).resize((56, 48))
    return small.convert("L") if channels == 1 else small


def scan(seed, path):
    """A slice as scanners write it: signed 16 bit, with slope and window; without pydicom, a 16 bit PNG."""
    values = np.asarray(picture(seed, 1), np.int16) * 10 - 1000
    try:
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
    except ImportError:
        Image.fromarray((values + 1000).astype(np.uint16)).save(path.with_suffix(".png"))
        return
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    slice_.SOPClassUID, slice_.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    slice_.Modality, slice_.Rows, slice_.Columns = "CT", *values.shape
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated = slice_.BitsStored = 16
    slice_.HighBit, slice_.PixelRepresentation = 15, 1
    slice_.RescaleSlope, slice_.RescaleIntercept = 1, -24
    slice_.WindowCenter, slice_.WindowWidth = 40, 2000
    slice_.PixelData = values.tobytes()
    slice_.save_as(path)


def folder(path, recipe, domain, count=3):
    """Images as the recipe's channels and depth want them; for a labelled set also labels and masks."""
    path.mkdir(parents=True)
    for n in range(count):
        seed = n + 100 * domain
        if recipe == "medical":
            scan(seed, path / f"{n}.dcm")
        else:
            channels = config.RECIPES[recipe].get("channels", (3, 3))[domain]
            picture(seed, channels, 0.4 if domain else 1.0).save(path / f"{n}.png")


def labelled(path):
    folder(path / "images", "drive", 0, 2)
    (path / "labels").mkdir()
    (path / "labels" / "0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (path / "annotations.json").write_text(json.dumps({"images": []}))
    (path / "masks").mkdir()
    Image.fromarray(np.eye(48, 56, dtype=np.uint8)).save(path / "masks" / "0.png")


def film(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 56, 48, "yuv420p"
        for n in range(3):
            file.mux(stream.encode(av.VideoFrame.from_image(picture(n))))
        file.mux(stream.encode())


def make(words, recipe):
    """What a command reads, where it is not there yet."""
    if words[:2] == ["data", "fetch"]:
        words = ["train", f"data/{words[2]}"]
    places = []
    for word in words[1:]:
        if word.startswith("-"):
            break
        places.append(Path(word))
    evaluated = words[0] == "evaluate"
    for n, place in enumerate(places):
        if place.exists() or str(place).startswith("runs/") or str(place) in bundled():
            continue
        if words[0] == "train" and len(places) == 1:
            for domain, letter in enumerate("AB"):
                folder(place / f"train{letter}", recipe, domain)
                folder(place / f"test{letter}", recipe, domain, 12)
        elif place.suffix in FILMS:
            film(place)
        elif place.suffix:
            picture(7, config.RECIPES[recipe].get("channels", (3, 3))[0]).save(place)
        elif place.name == "dataset":
            labelled(place)
        else:
            folder(place, recipe, n % 2 if words[0] in ("train", "evaluate") else 0, 12 if evaluated else 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_a_page_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VICEVERSA_CACHE", str(tmp_path / "cache"))
    row, trained, written = config.RECIPES[name], None, []
    for words in commands(name):
        make(words, name)
        if words[0] == "train":
            size = SIZES[row.get("levels", 1) if row.get("generator") == "pyramid" else 1]
            words = [*words, *SMALL, *size]
            trained = Path(words[words.index("--out") + 1])
        assert main(words) == 0, f"{' '.join(words)}\n{capsys.readouterr()}"
        if words[0] == "translate":
            flag = next((f for f in ("-o", "--out") if f in words), None)
            written.append(Path(words[words.index(flag) + 1] if flag else "translated"))
    assert trained is not None
    run = json.loads((trained / "config.json").read_text())
    asked = run.get("settings", run)
    assert all(
        plain(asked[key]) == plain(value) for key, value in row.items() if f"--{key}" not in words_of(SMALL, SIZES)
    )
    assert json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] >= 2 - 1e-9
    generators = load_model(trained / "model.safetensors").generators
    channels = tuple(row.get("channels", (3, 3)))
    assert (generators["ab"].spec.channels_in, generators["ab"].spec.channels_out) == channels
    assert written and all(place.exists() for place in written)
    for place in (file for out in written for file in ([out] if out.is_file() else out.rglob("*"))):
        if place.suffix in (".jpg", ".png"):
            with Image.open(place) as image:
                assert image.size == (56, 48), place
    extra(name, tmp_path)


def words_of(*groups):
    return {word for group in groups for word in (group if isinstance(group, list) else sum(group.values(), ()))}


def plain(value):
    return list(value) if isinstance(value, tuple) else value


def extra(name, place):
    """What only this recipe promises."""
    if name == "drive":
        night = place / "dataset-night"
        assert (night / "labels" / "0.txt").read_text() == (place / "dataset" / "labels" / "0.txt").read_text()
        for kept in ("annotations.json", "masks/0.png"):
            assert (night / kept).read_bytes() == (place / "dataset" / kept).read_bytes(), "masks are never translated"
        assert (night / "images" / "0.png").read_bytes() != (place / "dataset" / "images" / "0.png").read_bytes()
    if name == "medical":
        made = [read(path, None) for path in (place / "made").rglob("[!.]*") if path.is_file()]
        assert len(made) == 3 and all(p.pixels.dtype == np.uint16 and p.pixels.shape[2] == 1 for p in made)
    if name == "colour":
        with Image.open(place / "coloured.jpg") as image:
            assert image.mode == "RGB"
    if name == "photo":
        with av.open(str(place / "evening.mp4")) as evening:
            assert sum(1 for _ in evening.decode(video=0)) > 20


@pytest.mark.parametrize("name", ["paper", "paint", "fast"])
def test_the_rows_without_a_page_run_too(name, tmp_path):
    for domain, letter in enumerate("ab"):
        folder(tmp_path / letter, name, domain)
    words = ["train", str(tmp_path / "a"), str(tmp_path / "b"), "--recipe", name, "--out", str(tmp_path / "run")]
    assert main([*words, *SMALL, *SIZES[1]]) == 0
    assert viceversa.load(tmp_path / "run")(picture(5), to="b").size == (56, 48)


@pytest.mark.parametrize(("recipe", "like", "said"), [
    ("medical", "photo", "): in colour, and taken as gray (--channels"),
    ("fast", "medical", "all images of a are gray: --channels"),
])  # fmt: skip
def test_a_recipe_whose_channels_do_not_fit_is_said(recipe, like, said, tmp_path, capsys):
    for domain, letter in enumerate("ab"):
        folder(tmp_path / letter, like, domain)
    words = ["train", str(tmp_path / "a"), str(tmp_path / "b"), "--recipe", recipe, "--out", str(tmp_path / "run")]
    assert main([*words, *SMALL, *SIZES[1]]) == 0
    assert said in capsys.readouterr().out
