"""docs/rulers.md: its recipe makes a ruler that works."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from viceversa.evaluation.features import load_features

PAGE = Path(__file__).parents[2] / "docs" / "rulers.md"


def test_the_recipe_for_a_ruler_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    network = nn.Sequential(nn.Conv2d(3, 5, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    names: dict[str, object] = {"network": network}
    exec(code, names)
    ruler = load_features("ruler.onnx")
    assert ruler.size == 5
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    with torch.inference_mode():
        wanted = names["Ruler"](network)(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)  # type: ignore[operator]
    np.testing.assert_allclose(ruler([image] * 3), wanted.expand(3, -1), rtol=1e-3, atol=1e-4)
