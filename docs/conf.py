"""The site: `make docs`. What of it is made from the code: the references, and the settings of each recipe."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sphinx.application import Sphinx

import viceversa
from viceversa.cli import as_shown
from viceversa.config import RECIPES, Command, Fetch, Train

project = "viceversa"
project_copyright = "the viceversa authors"
release = viceversa.__version__
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "viceversa"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sphinx = html_use_index = smartquotes = False
html_show_search_summary = False  # which pages opened from disk may not fetch
pygments_style, pygments_dark_style = "friendly", "monokai"
highlight_language = "text"
myst_heading_anchors = 3
nitpicky = True

KINDS = {int: "whole number", float: "number", str: "text", Path: "path", bool: "", NoneType: ""}
HIDDEN = re.compile(r"\b(viceversa|pathlib|collections\.abc|typing|numpy|PIL|torch)\.(\w+\.)*|'")
"""Of signatures: where a name comes from."""


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write_references)
    app.connect("source-read", fill_in)


def write_references(app: Sphinx) -> None:
    """Into docs/reference, which git ignores; left alone where nothing has changed, so as not to be built again."""
    for name, lines in (("command", command_line()), ("python", python())):
        path, text = Path(app.srcdir, "reference", f"{name}.md"), "\n".join(lines)
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def fill_in(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = re.sub(r"^\{\{ recipe (\w+) \}\}$", lambda match: row(match[1]), source[0], flags=re.MULTILINE)


def row(name: str) -> str:
    """A row of RECIPES beside the paper's settings."""
    usual = {field.name: field.default for field in dataclasses.fields(Train)}
    lines = [f"| `{flag(key)}` | {shown(value)} | {shown(usual[key])} |" for key, value in RECIPES[name].items()]
    return "\n".join([f"| setting | {name} | paper |", "|---|---|---|", *lines])


def command_line() -> Iterator[str]:
    """A section for each command: what it does, then each flag with its choices, its default, and its help."""
    yield from ("# Command line", "", "Made from the code; `viceversa COMMAND --help` says the same.", "")
    for kind in get_args(Command):
        command = getattr(kind, "__origin__", kind)
        name = "data fetch" if command is Fetch else command.__name__.lower()
        yield from (f"## viceversa {name}", "", escaped(inspect.getdoc(command) or ""), "")
        yield from ("| flag | values | default | |", "|---|---|---|---|")
        own = dataclasses.fields(as_shown(command, {}))
        networks = [f for field in own if field.name == "network" for f in dataclasses.fields(field.default_factory)]
        for field in [*(field for field in own if field.name != "network"), *networks]:
            marks = [mark for mark in annotations(field.type) if mark is not None]
            place = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), "")
            positional = "POSITIONAL" in map(str, marks) or "Positional" in repr(field.type)
            names = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
            names = [place or field.name] if positional else [*names, f"{flag(field.name)} {place}".strip()]
            default = "" if field.default in (None, (), dataclasses.MISSING) else f"`{shown(field.default)}`"
            words = escaped(field.metadata["help"])
            yield f"| {', '.join(f'`{n}`' for n in names)} | {choices(field.type)} | {default} | {words} |"
        yield ""
    yield from ("## Recipes", "", "`--recipe NAME` sets these, where no flag says otherwise.", "")
    yield from ("| name | settings |", "|---|---|")
    for name, settings in RECIPES.items():
        text = ", ".join(f"`{flag(key)}` {shown(value)}" for key, value in settings.items())
        yield f"| `{name}` | {text or 'as published'} |"
    yield ""


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(shown, value))
    return {"True": "yes", "False": "no"}.get(str(value), str(value))


def annotations(hint: Any) -> Iterator[Any]:
    """All that stands beside a type, at any depth."""
    yield from getattr(hint, "__metadata__", ())
    for inner in get_args(hint):
        if not isinstance(inner, str | int):
            yield from annotations(inner)


def choices(hint: Any) -> str:
    """What a flag may be given, for people."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([choices(inner[0]), *(str(m) for m in hint.__metadata__ if type(m).__name__ == "Within")])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(filter(None, map(choices, inner)))
    if origin is tuple:
        return " and ".join(choices(each) for each in inner if each is not ...) + " ..." * (... in inner)
    return KINDS.get(hint, getattr(hint, "__name__", str(hint)))


def python() -> Iterator[str]:
    """A section for each public name: signature and docstring; of a class also what it can do."""
    yield from ("# Python", "", "```python", (inspect.getdoc(viceversa) or "").split("\n\n", 1)[1], "```", "")
    for name in sorted(set(viceversa.__all__) - {"__version__"}, key=str.casefold):
        thing = getattr(viceversa, name)
        yield from section(f"## viceversa.{name}", name, thing)
        for member, value in vars(thing).items() if inspect.isclass(thing) else ():
            if member == "__call__" or (not member.startswith("_") and inspect.getdoc(value) and not is_data(value)):
                yield from section(f"### {name}.{member}", member, value)


def is_data(value: Any) -> bool:
    return not (callable(value) or isinstance(value, property | classmethod | staticmethod))


def section(title: str, name: str, thing: Any) -> Iterator[str]:
    yield from (title, "")
    function = getattr(thing, "fget", None) or getattr(thing, "__func__", thing)
    if not (inspect.isclass(thing) and issubclass(thing, Exception)):
        signature = name + HIDDEN.sub("", str(inspect.signature(function)))
        if len(signature) > 90:
            signature = re.sub(r"\((.*)\)", lambda m: "(\n    " + m[1].replace(", ", ",\n    ") + ",\n)", signature)
        yield from ("```python", signature, "```", "")
    yield from (escaped(inspect.getdoc(thing) or ""), "")


def escaped(text: str) -> str:
    """Angle brackets, stars and bars are text, not HTML, emphasis and tables."""
    return text.replace("<", "&lt;").replace("|", "&#124;").replace("*", "\\*")
