"""Pages that need nothing but themselves: templates of assets/, with styles, scripts, data and images inlined.

A page asks nothing of the network, and its content security policy forbids it to.
"""

import base64
import math
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from .. import __version__
from ..errors import BadInput
from ..files import try_out
from ..terminal import clock, count, words

GENERATOR, HEAD = b'<meta name="generator" content="viceversa', 2048
"""What stands in the first bytes of each page."""


def check_out(out: Path) -> None:
    """Raises BadInput, before the work, where a page cannot be written or would replace what is none."""
    if out.is_dir():
        raise BadInput(f"--out {out} is a folder: name the file to write, such as {out / 'page.html'}")
    if out.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"--out {out}: a page is written; name a file that ends in .html")
    if out.exists():
        with out.open("rb") as file:
            if GENERATOR not in file.read(HEAD):
                raise BadInput(f"--out {out} is there already, and no page of viceversa's: name another file")
    try_out(out.parent)


def render(template: str, **values: Any) -> str:
    """The HTML of `template` (a file of assets/), filled with `values`; text is escaped."""
    pages = Environment(
        loader=PackageLoader("viceversa", "assets"),
        autoescape=select_autoescape(["html.j2"], default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(clock=clock, count=count, figures=figures, percent=percent, sentence=sentence, words=words)
    pages.globals.update(zip=zip, asset=asset)
    html = pages.get_template(template).render(version=__version__, today=date.today().isoformat(), **values)
    return html.encode("utf-8", "backslashreplace").decode("utf-8")  # names of files may be anything


def asset(name: str) -> Markup:
    """A file of assets/ as it is."""
    return Markup((files("viceversa") / "assets" / name).read_text(encoding="utf-8"))


def data_uri(image: bytes) -> str:
    """A PNG, WebP, JPEG or GIF as an address that holds it."""
    kinds = {b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif"}
    kind = kinds.get(image[:4], "jpeg" if image[:2] == b"\xff\xd8" else None)
    if kind is None:
        raise ValueError("a page shows PNG, WebP, JPEG and GIF")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def figures(value: float | None, digits: int = 3) -> str:
    """A measured value to so many significant figures, without an exponent where it can be avoided."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -5 < magnitude < 7:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}".replace("-", "−")


def percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share < 0.1 else f"{100 * share:.0f}%"


def sentence(text: str) -> str:
    """Begin with a capital and end with a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", ":")) else ".")
