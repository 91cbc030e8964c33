"""Pages that need nothing but themselves: templates of assets/, with styles, scripts and images inlined.

A page asks nothing of the network, and its content security policy forbids it to.
"""

import base64
import math
from datetime import date
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from .. import __version__
from ..terminal import count, words

MIME = {
    b"\x89PNG": "image/png",
    b"RIFF": "image/webp",
    b"\xff\xd8\xff\xe0": "image/jpeg",
    b"GIF8": "image/gif",
}


def render(template: str, **values: Any) -> str:
    """The HTML of `template` (a file of assets/), filled with `values`; text is escaped."""
    pages = Environment(
        loader=PackageLoader("viceversa", "assets"),
        autoescape=select_autoescape(["html.j2"], default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(
        count=count, duration=duration, figures=figures, percent=percent, sentence=sentence, words=words
    )
    pages.globals["zip"] = zip
    return pages.get_template(template).render(version=__version__, today=date.today().isoformat(), **values)


def data_uri(image: bytes) -> str:
    """A PNG, WebP, JPEG or GIF as an address that holds it."""
    kind = MIME.get(image[:4], "image/jpeg" if image[:2] == b"\xff\xd8" else "")
    if not kind:
        raise ValueError("a page shows PNG, WebP, JPEG and GIF")
    return f"data:{kind};base64,{base64.b64encode(image).decode('ascii')}"


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


def duration(seconds: float) -> str:
    """45 s, 20 min, 3 h 12 min, 2 d 5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def sentence(text: str) -> str:
    """Begin with a capital and end with a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", ":")) else ".")
