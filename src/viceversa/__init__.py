"""Unpaired image-to-image translation, both ways, with CycleGAN (Zhu, Park, Isola, Efros; ICCV 2017).

import viceversa

run = viceversa.train("photos/day", "photos/night", out="runs/day2night", minutes=30)
model = viceversa.load("runs/day2night")
model("photo.jpg", to="night").save("night.jpg")
print(viceversa.evaluate(model, "photos/day_test", "photos/night_test"))
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["BadInput", "Failed", "Interrupted", "Translator", "__version__", "evaluate", "load", "train"]

if TYPE_CHECKING:
    from .errors import BadInput, Failed, Interrupted
    from .evaluation.evaluate import evaluate
    from .training.train import train
    from .translation.translator import Translator, load

_HOME = {
    "BadInput": "errors",
    "Failed": "errors",
    "Interrupted": "errors",
    "Translator": "translation.translator",
    "load": "translation.translator",
    "train": "training.train",
    "evaluate": "evaluation.evaluate",
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562): `viceversa --help` must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'viceversa' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
