"""The site: `make docs`. What of it is made from the code: the references, and the settings of each recipe."""

import dataclasses
import inspect
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
from sphinx.application import Sphinx

import viceversa
from viceversa import config

project = "viceversa"
project_copyright = "the viceversa authors"
release = viceversa.__version__
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "viceversa"
html_copy_source = html_show_sphinx = False
pygments_style, pygments_dark_style = "friendly", "monokai"
highlight_language = "text"
myst_heading_anchors = 3
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]

WORDS = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH", bool: "", NoneType: ""}


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write_references)
    app.connect("source-read", fill_in)


def write_references(app: Sphinx) -> None:
    """Into docs/reference, which is not kept; only where something has changed, so that it is not built again."""
    for name, text in (("command", command_line()), ("python", python())):
        path = Path(app.srcdir, "reference", f"{name}.md")
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def fill_in(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = re.sub(r"^\{\{ recipe (\w+) \}\}$", lambda match: row(match[1]), source[0], flags=re.MULTILINE)


def row(name: str) -> str:
    """A row of RECIPES beside the paper's settings."""
    usual = {field.name: field.default for field in dataclasses.fields(config.Train)}
    lines = [
        f"| `--{key.replace('_', '-')}` | {shown(value)} | {shown(usual[key])} |"
        for key, value in config.RECIPES[name].items()
    ]
    return "\n".join([f"| setting | {name} | paper |", "|---|---|---|", *lines])


def shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return (
        {True: "yes", False: "no", None: "none"}.get(value, str(value))
        if isinstance(value, bool | None)
        else str(value)
    )


def command_line() -> str:
    """A section for each command: what it does, then each of its flags with its choices and its default."""
    text = ["# Command line", "", "Made from the code; `viceversa COMMAND --help` says the same.", ""]
    for each in get_args(config.Command):
        command = get_args(each)[0] if get_origin(each) is Annotated else each
        name = {"Fetch": "data fetch"}.get(command.__name__, command.__name__.lower())
        text += [f"## viceversa {name}", "", escaped(inspect.getdoc(command) or ""), ""]
        text += ["| flag | values | default | |", "|---|---|---|---|"]
        hints = get_type_hints(command, include_extras=True)
        helps = {
            p.arg_name: p.description or ""
            for c in reversed(command.__mro__[:-1])
            for p in docstring_parser.parse_from_object(c).params
        }
        for field in dataclasses.fields(command):
            meta = getattr(hints[field.name], "__metadata__", ())
            metavar = next((m.metavar for m in meta if getattr(m, "metavar", None)), None)
            positional = "Positional" in repr(hints[field.name]) or any("POSITIONAL" in repr(m).upper() for m in meta)
            flag = metavar or f"--{field.name.replace('_', '-')}"
            aliases = [alias for m in meta for alias in getattr(m, "aliases", None) or ()]
            flag = " ".join([*aliases, flag if not positional else metavar or field.name.upper()])
            default = (
                ""
                if field.default is dataclasses.MISSING or field.default in (None, ())
                else f"`{shown(field.default)}`"
            )
            words = " ".join(helps.get(field.name, "").split())
            text.append(f"| `{flag}` | {choices(hints[field.name])} | {default} | {escaped(words)} |")
        text.append("")
    return "\n".join([*text, recipes()])


def recipes() -> str:
    rows = [
        f"| `{name}` | {', '.join(f'`{key}` {shown(value)}' for key, value in row.items()) or 'as published'} |"
        for name, row in config.RECIPES.items()
    ]
    return "\n".join(
        [
            "## Recipes",
            "",
            "`--recipe NAME` sets these, where no flag says otherwise.",
            "",
            "| name | settings |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def choices(hint: Any) -> str:
    """What a flag may be given, for people."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [str(m) for m in hint.__metadata__ if type(m).__name__ == "Within"]
        return " ".join([choices(inner[0]), *limits])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(filter(None, map(choices, inner)))
    if origin is tuple:
        return " ".join(choices(each) for each in inner if each is not ...) + (" ..." if ... in inner else "")
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def python() -> str:
    """A section for each public name: signature and docstring."""
    text = ["# Python", "", "```python", inspect.getdoc(viceversa).split("\n\n", 1)[1], "```", ""]
    for name in sorted(set(viceversa.__all__) - {"__version__"}, key=str.casefold):
        thing = getattr(viceversa, name)
        text += section(f"viceversa.{name}", thing, "##")
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if (not member.startswith("_") or member == "__call__") and (
                    callable(value) or isinstance(value, property | classmethod)
                ):
                    text += section(f"{name}.{member}", value, "###")
    return "\n".join(text)


def section(title: str, thing: Any, level: str) -> list[str]:
    function = getattr(thing, "fget", None) or getattr(thing, "__func__", thing)
    try:
        signature = str(inspect.signature(function))
    except (TypeError, ValueError):
        signature = ""
    signature = re.sub(r"(viceversa|pathlib|collections\.abc|typing|numpy|PIL|torch)\.(\w+\.)*", "", signature).replace(
        "'", ""
    )
    if inspect.isclass(thing) and issubclass(thing, Exception):
        signature = ""
    return [
        f"{level} {title}",
        "",
        *(["```python", f"{title.split('.')[-1]}{signature}", "```", ""] if signature else []),
        escaped(inspect.getdoc(thing) or ""),
        "",
    ]


def escaped(text: str) -> str:
    """Angle brackets and bars are text, not HTML and tables."""
    return text.replace("<", "&lt;").replace("|", "&#124;").replace("*", "\\*")
