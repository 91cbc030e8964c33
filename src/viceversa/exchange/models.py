"""The models that come with the package, and what any model says of itself: what it learned from, how well, what it
fails at."""

import shutil
import textwrap
from typing import Any

from ..config import Models
from ..model.file import Model, bundled, load_model, read_card, resolve
from ..model.networks import describe
from ..terminal import say


def command_models(wanted: Models) -> int:
    """`viceversa models`: a few lines for each that comes along, or all that is told of one."""
    if wanted.name is not None:
        path = resolve(wanted.name)
        model, card = load_model(path), read_card(path)
        told = {key: value for key, value in card.items() if key != "domains"} if card else facts(model)
        tell([*networks(model), *lines_of(told)])
        return 0
    known = bundled()
    if not known:
        say("no models come with this installation")
    for name, path in known.items():
        model, card = load_model(path), read_card(path)
        kinds, (a, b) = {describe(network) for network in model.generators.values()}, model.domains
        both = "<->" if len(model.generators) == 2 else "->" if "ab" in model.generators else "<-"
        tell([f"{name}: {a} {both} {b}; {' and '.join(sorted(kinds))}; {path.stat().st_size / 1e6:.1f} MB"])
        tell([f"    {key}: {card[key]}" for key in ("data", "fails", "licence") if key in card])
    return 0


def networks(model: Model) -> list[str]:
    """Each direction, and its generator."""
    return [f"{' -> '.join(model.ends(way))}: {describe(network)}" for way, network in model.generators.items()]


def facts(model: Model) -> dict[str, Any]:
    """What a model file tells beside its networks: training, scores, where it is from; where it tells it."""
    info, order = dict(model.info), ("recipe", "steps", "epochs", "minutes", "seed")
    training, scores = dict(info.pop("training", {})), info.pop("scores", {})
    if isinstance(training.get("seconds"), int | float):
        training["minutes"] = round(training.pop("seconds") / 60, 1)
    training = {{"step": "steps", "epoch": "epochs"}.get(key, key): value for key, value in training.items()}
    if scores.keys() >= {"kind", "features", "a", "b"}:  # as `train --score` writes them
        a, b = model.domains
        scores = {f"{scores['kind']}, {scores['features']}": {f"to {b}": scores["b"], f"to {a}": scores["a"]}}
    told = {"training": {key: training[key] for key in order if key in training} | training, "scores": scores, **info}
    return {key: value for key, value in told.items() if key != "statistics" and value not in ({}, [], None)}


def lines_of(value: Any, indent: str = "") -> list[str]:
    """A card as lines: names before their values, what lies within indented."""
    lines = []
    items = value.items() if isinstance(value, dict) else [("-", each) for each in value]
    for key, each in items:
        name = key if key == "-" else f"{key}:"
        if isinstance(each, dict | list):
            lines += [f"{indent}{name}", *lines_of(each, f"{indent}    ")]
        else:
            lines.append(f"{indent}{name} {each}")
    return lines


def tell(lines: list[str]) -> None:
    """Print them, not wider than the terminal; what a line goes on with is indented further."""
    width = shutil.get_terminal_size().columns
    for line in lines:
        indent = line[: len(line) - len(line.lstrip())]
        how: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
        wrapped = textwrap.wrap(line.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}    ", **how)
        say("\n".join(wrapped))
