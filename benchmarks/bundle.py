"""Make of a finished run a model that ships: weights in bf16 and a card, whose figures this measures.

    python benchmarks/bundle.py RUN NAME ROOT --data "..." --fails "..." [--licence "..."] [--features lite0 squeezenet]
        [--lpips FOLDER] [--epoch N] [--recipe NAME] [--begun "..."] [--only DOMAIN]
    python benchmarks/bundle.py NAME NAME ROOT [--features ...] [--lpips FOLDER] [--fails "..."]
        [--contrast DOMAIN...]

Writes src/viceversa/assets/models/NAME.safetensors and NAME.json. ROOT has the testA and testB that scores are measured
on. The card holds what was trained on, the recipe and the command, seed, time and machine, the scores by each ruler
beside those of the untranslated pictures, and what the model fails at, which a person has to look for. With --only the
run gives the way to that domain, and the way back stays that of the model which ships now. With the NAME of a model
that ships in the place of the run its scores are measured anew: its weights stay, and how they are used has changed.
With --contrast the contrast of ways that were trained before 2026-12 is counted, over the training pictures in ROOT.
"""

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import viceversa
from viceversa.config import RECIPES, Train, make
from viceversa.data.pictures import to_tensor
from viceversa.data.store import load_test
from viceversa.model.file import BUNDLED, Model, load_model, read_card, resolve, save_model
from viceversa.model.tint import Tint
from viceversa.training.runs import read_run

OF_TRAINING = ("recipe", "command", "seed", "minutes", "steps", "epoch", "machine")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("root", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--fails")
    parser.add_argument("--licence", default="Apache-2.0")
    parser.add_argument("--features", nargs="+", default=["lite0", "squeezenet"])
    parser.add_argument("--lpips", type=Path)
    parser.add_argument("--epoch", type=int)
    parser.add_argument("--recipe", help="the recipe whose settings the run's flags were; default: the run's own")
    parser.add_argument("--begun", help="how the run was trained before its settings were changed midway")
    parser.add_argument(
        "--only", metavar="DOMAIN", help="the way to it is the run's, the way back that which ships now"
    )
    parser.add_argument(
        "--contrast",
        nargs="+",
        metavar="DOMAIN",
        default=[],
        help="count it for the way to it, as was not done in training",
    )
    o = parser.parse_args()
    shipped = BUNDLED / f"{o.name}.safetensors"
    if o.run == Path(o.name):
        model = load_model(shipped)
        card = read_card(shipped)
        card["fails"] = o.fails or card["fails"]
    elif o.data and o.fails:
        model = load_model(resolve(o.run, o.epoch))
        card = of_run(model, shipped, o)
    else:
        parser.error("a run wants --data and --fails")
    for domain in o.contrast:
        count_contrast(model, model.direction(domain), o.root)
    for generator in model.generators.values():
        for layer in generator.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.to(torch.bfloat16)
    card["scores"] = model.info["scores"] = measured(model, o)
    save_model(shipped, model)
    shipped.chmod(0o644)
    shipped.with_suffix(".json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(card, indent=1, ensure_ascii=False))


def of_run(model: Model, shipped: Path, o: argparse.Namespace) -> dict[str, Any]:
    """Its card, but for the scores; with --only one way of `model` becomes that of `shipped`."""
    run = read_run(o.run)
    first, second = model.domains
    if o.only:
        before = read_card(shipped)
        stays = "ba" if model.direction(o.only) == "ab" else "ab"
        model.generators[stays] = load_model(shipped).generators[stays]
    few, others = (len(list((o.root / folder).iterdir())) for folder in ("testA", "testB"))
    card = {
        "domains": [first, second],
        "data": o.data,
        "recipe": o.recipe or run.settings.get("recipe", "paper"),
        "command": command(run.settings, o.recipe or run.settings.get("recipe", "paper")),
        **({"begun": o.begun} if o.begun else {}),
        "seed": run.config["seed"],
        "minutes": round(model.info["training"]["seconds"] / 60),
        "steps": model.info["training"]["step"],
        "epoch": model.info["training"]["epoch"],
        "machine": run.config["device"],
        "scores": {},  # in this place, once they are measured
        "scored on": f"{few} and {others} test pictures; lower is better for KID; the features named lite0 took part"
        " in training, so the other ruler counts",
        "fails": o.fails,
        "licence": o.licence,
    }
    if o.only:
        card[f"the way to {first if stays == 'ba' else second}"] = {key: before[key] for key in OF_TRAINING}
    return card


def count_contrast(model: Model, way: str, root: Path) -> None:
    """As while training (`Tint`), over all training pictures, as the network sees test pictures."""
    generator: Any = model.generators[way]
    generator.contrast.fill_(1)
    tint, translator = Tint(generator.spec.channels_out), viceversa.load(model)
    crop, resize = (model.info["image"][name] for name in ("crop", "resize"))
    given, real = (
        load_test(sorted((root / folder).iterdir()), channels=3, resize=resize, crop=crop, count=sys.maxsize)
        for folder in (("trainA", "trainB") if way == "ab" else ("trainB", "trainA"))
    )
    fake = [translator(image, to=model.domains[way == "ab"]) for image in given]
    tint.count(*(torch.cat([to_tensor(image) for image in images]) for images in (fake, real)))
    generator.contrast.copy_(tint.contrast())
    print(f"contrast of the way to {model.domains[way == 'ab']}: {generator.contrast:.3f}")


def measured(model: Model, o: argparse.Namespace) -> dict[str, Any]:
    """KID by each ruler beside that of the untranslated pictures, and the structure kept."""
    first, second = model.domains
    test_a, test_b = o.root / "testA", o.root / "testB"
    scores: dict[str, Any] = {}
    for ruler in o.features:
        found = viceversa.evaluate(model, test_a, test_b, features=ruler, lpips=o.lpips)
        untranslated = viceversa.evaluate(fake=test_a, real=test_b, features=ruler, lpips=o.lpips)
        scores[f"kid, {ruler}"] = {
            **{f"to {domain}": round(found[domain]["kid"], 4) for domain in (second, first)},
            "untranslated": round(untranslated["kid"], 4),
        }
    return scores | {"structure kept": {f"to {d}": round(found[d]["structure"], 4) for d in (second, first)}}


def command(settings: dict[str, Any], recipe: str) -> str:
    """The command that trains such a model, with what differs from its recipe alone."""
    beneath = asdict(make(Train, a="ROOT", recipe=recipe)) if recipe in RECIPES else {}
    left_out = {"a", "b", "out", "test_a", "test_b", "seed", "device", "recipe", "score", "log", "keep"}
    words = ["viceversa", "train", "ROOT", "--recipe", recipe]
    for name, value in settings.items():
        known = beneath.get(name)
        if name in left_out or value is None or value == (list(known) if isinstance(known, tuple) else known):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


if __name__ == "__main__":
    main()
