"""Self-contained HTML pages. All text is escaped unless it is `Html`.

Pages follow the light or dark mode, fit small screens (wide parts scroll separately, also by keyboard), and suit screen
readers: headings, row and column headers, descriptions of pictures and audio.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import soundfile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Html", "audio", "definitions", "details", "element", "page", "picture", "table"]

DPI = 100
COLOURS = 256  # a palette halves the size of a spectrogram or a matrix
MIN_SCALE = 0.6  # smaller pictures scroll instead of shrinking

STYLE = """
:root{color-scheme:light dark;--text:#1b1b1b;--page:#fff;--quiet:#555;--line:#c4c4c4;--link:#0b57d0}
@media(prefers-color-scheme:dark){:root{--text:#e8e8e8;--page:#16181c;--quiet:#b4b4b4;--line:#50545a;--link:#8ab4f8}}
body{margin:0 auto;max-width:72rem;padding:1rem;font:1rem/1.5 system-ui,sans-serif;color:var(--text);
background:var(--page);overflow-wrap:anywhere}
h1,h2,h3{line-height:1.25} h2{margin-top:2.5rem} a{color:var(--link)} small,figcaption,caption{color:var(--quiet)}
small{display:block;font-weight:normal} figure{margin:1rem 0} figcaption,caption{text-align:left;max-width:45rem}
.wide{overflow-x:auto} :focus-visible{outline:3px solid var(--link);outline-offset:2px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;overflow-wrap:normal}
td,th{padding:.2rem .8rem;text-align:right;vertical-align:top;border-bottom:1px solid var(--line)}
td{white-space:nowrap} th:first-child{text-align:left;padding-left:0}
img{display:block;max-width:100%;height:auto;background:#fff} audio{display:block;width:100%;max-width:30rem}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.2rem 1rem} dt{color:var(--quiet)} dd{margin:0}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;padding:0;list-style:none} summary{cursor:pointer}
"""


class Html(str):
    """Text that is HTML; `element` escapes any other text."""


def element(tag: str, *content: str, **attributes: str) -> Html:
    """An element with its end tag.

    Args:
        tag: Name of the element.
        content: Text, which is escaped, and `Html`, which is not.
        attributes: Name -> value, which is escaped; a trailing underscore is dropped (`class_`).

    Example:
        >>> element("p", "a < b", element("b", "!"), class_="x")
        '<p class="x">a &lt; b<b>!</b></p>'
    """
    return Html(f"{_start(tag, attributes)}{''.join(map(_escaped, content))}</{tag}>")


def _start(tag: str, attributes: Mapping[str, str]) -> str:
    values = (f' {name.rstrip("_")}="{html.escape(value)}"' for name, value in attributes.items())
    return f"<{tag}{''.join(values)}>"


def _escaped(text: str) -> str:
    return text if isinstance(text, Html) else html.escape(text)


def _wide(content: Html, name: str) -> Html:
    """Content that scrolls sideways on narrow screens."""
    return element("div", content, class_="wide", tabindex="0", role="region", **{"aria-label": name})


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table; the first cell of a row is its header.

    Args:
        caption: Caption.
        header: Header of each column.
        rows: Cells of each row.
    """
    head = element("tr", *(element("th", cell, scope="col") for cell in header))
    body = [
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))
        for first, *rest in rows
    ]
    whole = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return _wide(whole, caption)


def definitions(pairs: Mapping[str, str]) -> Html:
    """A definition list."""
    return element("dl", *(Html(element("dt", name) + element("dd", value)) for name, value in pairs.items()))


def details(summary: str, content: Html) -> Html:
    """Content that is shown when its summary is clicked."""
    return element("details", element("summary", summary), content)


def picture(figure: Figure, description: str, caption: str = "") -> Html:
    """A Matplotlib figure.

    Args:
        figure: The figure.
        description: Alternative text.
        caption: Caption below the picture.
    """
    width = round(DPI * figure.get_figwidth())
    style = f"width:{width}px;min-width:{round(MIN_SCALE * width)}px"
    image = Html(_start("img", {"alt": description, "style": style, "src": _data("image/png", _png(figure))}))
    return element("figure", _wide(image, "picture"), *([element("figcaption", caption)] if caption else []))


def _png(figure: Figure) -> bytes:
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    image = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    return small.getvalue()


def _data(kind: str, content: bytes) -> str:
    """A data URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def audio(samples: np.ndarray, sample_rate: int, description: str) -> Html:
    """An audio player with embedded 16-bit FLAC.

    Args:
        samples: (N,) float in [-1, 1].
        sample_rate: In Hz.
        description: Label for screen readers.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16")
    source = _data("audio/flac", buffer.getvalue())
    return element("audio", controls="", preload="metadata", src=source, **{"aria-label": description})


def page(title: str, sections: Mapping[str, Sequence[Html]]) -> str:
    """A page: title, table of contents, sections.

    Args:
        title: Title and main heading.
        sections: Heading -> content.
    """
    anchors = {heading: f"section-{number}" for number, heading in enumerate(sections, 1)}
    links = [element("li", element("a", heading, href=f"#{anchor}")) for heading, anchor in anchors.items()]
    header = element(
        "header", element("h1", title), element("nav", element("ul", *links), **{"aria-label": "Contents"})
    )
    content = [element("section", element("h2", name, id=anchors[name]), *parts) for name, parts in sections.items()]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{element('title', title)}\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{header}\n{element('main', *content)}\n</body>\n</html>\n"
    )
