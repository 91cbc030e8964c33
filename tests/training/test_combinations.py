"""Whatever networks and settings are put together: they train and translate, or a line says why not."""

import random

import numpy as np
import pytest
from PIL import Image

import viceversa

CHOICES = {
    "generator": ("resnet", "pyramid", "pyramid", "unet"), "precision": ("bf16", "bf16", "fp32"),
    "sees": (False, True), "guided": (False, True), "log_light": (False, True), "recolour": (False, True),
    "levels": (1, 2), "upsample": ("nearest", "transposed"),
    "discriminator": ("patch", "patch", "pixel", "none"), "discriminator_layers": (1, 2), "patch": (None, 16, 32),
    "discriminator_norm": (True, False),
    "projected": (0.0, 0.7), "identity": (0.0, 2.0), "tint": (0.0, 2.0), "history": (0, 5), "ema": (0.0, 0.9),
    "batch": (1, 2), "crop": (32, 48, 64), "resize": ("square", "short", "none"), "zoom": (1.0, 1.5),
    "adversarial": ("least-squares", "log-likelihood"), "checkpoint_activations": (False, False, True),
    "channels": ((3, 3), (3, 3), (1, 1), (1, 3), (3, 1)), "keep_lightness": (False, True),
}  # fmt: skip
REFUSED = "nobody to judge|needs the same channels|unet generator cannot|these networks take sides"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    source, root = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    for name in ("day", "night"):
        (root / name).mkdir()
        for n in range(2):
            coarse = Image.fromarray(source.integers(0, 255, (5, 6, 3), dtype=np.uint8))
            coarse.resize((160, 136)).save(root / name / f"{n}.png")
    return root / "day", root / "night"


def drawn(seed):
    source = random.Random(seed)
    choices = {name: source.choice(values) for name, values in CHOICES.items()}
    return choices | ({"crop": 128} if choices["generator"] == "unet" else {})


@pytest.mark.parametrize("seed", range(24))
def test_any_settings_train_or_are_refused_in_a_line(folders, tmp_path, seed):
    tests = dict(zip(("test_a", "test_b"), folders, strict=True))
    fixed = {"width": 4, "blocks": 1, "size": 136, "epochs": 1, "decay_epochs": 0, "seed": 1, "device": "cpu"}
    try:
        run = viceversa.train(*folders, out=tmp_path / "run", log="none", quiet=True, **tests, **fixed, **drawn(seed))
    except viceversa.BadInput as error:
        assert "\n" not in str(error)
        with pytest.raises(viceversa.BadInput, match=REFUSED):
            raise
        assert not (tmp_path / "run").exists()
        return
    photo = Image.open(folders[0] / "0.png")
    for domain in ("day", "night"):
        assert viceversa.load(run)(photo, to=domain).size == photo.size


def test_most_are_not_refused():
    kept = [c for c in map(drawn, range(24)) if c["discriminator"] != "none" or c["projected"]]
    kept = [c for c in kept if not c["identity"] or c["channels"][0] == c["channels"][1]]
    assert len({c["generator"] for c in kept}) == 3 and len(kept) >= 12
