"""What is served: the models named at the start, under the names that clients use, with all that is known of them."""

import re
import unicodedata
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..config import Serve
from ..errors import BadInput, suggestion
from ..model.file import bundled, read_card, resolve
from ..training.progress import stills
from ..translation.translator import Translator, load
from .refusal import Refusal, in_fields

ASSETS = files("viceversa") / "assets"
SAMPLE = 1024
"""Longest side of the samples."""


@dataclass(frozen=True)
class Served:
    """A model under its name."""

    name: str
    translator: Translator
    card: dict[str, Any]
    """domains, and whatever is known: data, recipe, fails, licence, training, scores."""
    report: Path | None = None
    films: dict[str, Path] = field(default_factory=dict)
    """The films of its training, by the domain that they go to."""
    still: Path | None = None
    """A picture for its card."""

    @property
    def targets(self) -> list[str]:
        """The domains that it translates to."""
        model = self.translator.model
        return [model.ends(direction)[1] for direction in model.generators]

    def target(self, to: str | None) -> str:
        """The domain that a client means. Raises Refusal (422)."""
        model = self.translator.model
        try:
            return model.ends(model.direction(to))[1]
        except BadInput as wrong:
            raise Refusal(422, in_fields(str(wrong))) from None

    @cached_property
    def picture(self) -> bytes:
        """A picture for the card, as WebP: a still of the training, else a sample, half of it translated."""
        if self.still is not None:
            with Image.open(self.still) as image:
                return small(image.convert("RGB"), 640, "WEBP", 80)
        with Image.open(BytesIO(samples()[self.card.get("sample", "city")])) as image:
            image.thumbnail((384, 384))
            before = np.asarray(image.convert("RGB"))
        direction = self.translator.model.direction(self.targets[0])
        given = before if self.translator.channels(direction) == 3 else before.mean(2, keepdims=True).astype(np.uint8)
        shown = np.broadcast_to(self.translator(given, to=self.targets[0]), before.shape).copy()
        shown[:, : shown.shape[1] // 2] = before[:, : shown.shape[1] // 2]
        return small(Image.fromarray(shown), 640, "WEBP", 80)

    def about(self) -> dict[str, Any]:
        """What /v1/models says of it."""
        back = dict(zip(self.translator.domains, self.translator.domains[::-1], strict=True))
        return {
            "name": self.name,
            "domains": list(self.translator.domains),
            "directions": [{"from": back[to], "to": to} for to in self.targets],
            "card": f"/v1/models/{self.name}/card",
            "picture": f"/v1/models/{self.name}/picture",
            "report": f"/v1/models/{self.name}/report" if self.report else None,
            "films": {to: f"/v1/models/{self.name}/films/{to}" for to in self.films},
        }


class Models(dict[str, Served]):
    """The models by their names."""

    def meant(self, name: str | None, to: str | None) -> Served:
        """The one of that name; where none is named, the first that translates to this domain, or the first of all
        where none is. Raises Refusal (404, 422)."""
        if name is not None:
            return self.named(name)
        if to is None:
            return next(iter(self.values()))
        seen = unicodedata.normalize("NFC", to)
        targets = {
            unicodedata.normalize("NFC", each): served for served in reversed(self.values()) for each in served.targets
        }
        if seen not in targets:
            known = list(dict.fromkeys(each for served in self.values() for each in served.targets))
            ways = " or ".join(f"to={each}" for each in known)
            raise Refusal(422, f"to={to}: {suggestion(to, known, f'choose {ways}')}")
        return targets[seen]

    def named(self, name: str) -> Served:
        """Raises Refusal (404)."""
        if name not in self:
            hint = suggestion(name, self, f"choose {' or '.join(self)}")
            raise Refusal(404, f"no model {name!r} is served here: {hint}")
        return self[name]


def find(serve: Serve) -> Models:
    """Load what a person named, or the bundled models. Raises BadInput."""
    names = serve.models or tuple(bundled())
    if not names:
        raise BadInput("no models come with this installation: name one, as in `viceversa serve RUN`")
    found = Models()
    for given in names:
        served = read(given, serve, set(found))
        found[served.name] = served
    return found


def read(given: str, serve: Serve, taken: set[str]) -> Served:
    path = resolve(given)
    translator = load(path, device=serve.device, precision=serve.precision, memory=serve.memory)
    domains = translator.domains
    card = {key: value for key, value in translator.model.info.items() if key in ("image", "training", "scores")}
    card |= read_card(path)
    card["domains"] = list(domains)
    run = path.parent if (path.parent / "config.json").is_file() else None
    name = unique(path.stem if run is None else run.resolve().name, taken)
    if run is None:
        return Served(name, translator, card)
    films = {to: run / "progress" / f"{domains[to == domains[0]]}2{to}.gif" for to in domains}
    report = run / "report.html"
    return Served(
        name,
        translator,
        card,
        report if report.is_file() else None,
        {to: film for to, film in films.items() if film.is_file()},
        next((still for _, still in reversed(stills(run))), None),
    )


def unique(name: str, taken: set[str]) -> str:
    """`name` as it can stand in an address; with a number where another model has it."""
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(other for other in numbered if other not in taken)


def page_file(name: str) -> bytes:
    """A file of the page; the style that it shares with the report lies among the assets."""
    return ((ASSETS if name == "page.css" else files(__package__) / "page") / name).read_bytes()


@cache
def samples() -> dict[str, bytes]:
    """Pictures to try, as JPEG: by the name that the page shows."""
    names = ("china.jpg", "earth-blue-marble.jpg", "earth-night.jpg")
    city, day, night = (Image.open(BytesIO((ASSETS / name).read_bytes())).convert("RGB") for name in names)
    europe = (0.44 * day.width, 0.06 * day.height, 0.69 * day.width, 0.38 * day.height)
    shown = {"city": city, "earth-by-day": day.crop(europe), "earth-by-night": night.crop(europe)}
    return {name: small(image, SAMPLE, "JPEG", 88) for name, image in shown.items()}


def small(image: Image.Image, longest: int, format: str, quality: int) -> bytes:
    """A file of the image, made so small."""
    out = BytesIO()
    image.thumbnail((longest, longest))
    image.save(out, format, quality=quality)
    return out.getvalue()
