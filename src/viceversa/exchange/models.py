"""The models that come with the package, and their cards: what they learned from, how well, what they fail at."""

from typing import Any

from ..config import Models, suggestion
from ..errors import BadInput
from ..model.file import bundled, load_model, read_card
from ..model.networks import describe
from ..terminal import say


def command_models(wanted: Models) -> int:
    """`viceversa models`: a few lines for each, or one card in full."""
    known = bundled()
    if wanted.name is None:
        if not known:
            say("no models come with this installation")
        for name, path in known.items():
            model, card = load_model(path), read_card(path)
            networks, (a, b) = {describe(network) for network in model.generators.values()}, model.domains
            both = "<->" if len(model.generators) == 2 else "->" if "ab" in model.generators else "<-"
            say(f"{name}: {a} {both} {b}; {' and '.join(sorted(networks))}; {path.stat().st_size / 1e6:.1f} MB")
            for key in ("data", "fails", "licence"):
                if key in card:
                    say(f"    {key}: {card[key]}")
        return 0
    if wanted.name not in known:
        hint = suggestion(wanted.name, known) if known else "there are none"
        raise BadInput(f"no model {wanted.name!r} comes with this installation: {hint}")
    for line in lines_of(read_card(known[wanted.name])):
        say(line)
    return 0


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
