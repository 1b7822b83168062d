"""Parts of pages: what is text is escaped, what is drawn or heard comes back."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from speechattn.reports.html import Html, audio, definitions, details, element, page, picture, table


class Parsed(HTMLParser):
    """The text of each element, and attributes, in order."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


TEXT = st.text("<>&\"'/;=# ab\u00e9\u4e2d", min_size=1)


@given(TEXT, TEXT)
def test_text_and_attributes_come_back_as_they_were(text, value):
    parsed = Parsed(element("p", text, title=value))
    assert parsed.tags == [("p", {"title": value})] and "".join(parsed.texts) == text


def test_html_is_taken_as_it_is():
    assert element("p", element("b", "a"), "<", Html("<i>b</i>")) == "<p><b>a</b>&lt;<i>b</i></p>"
    assert element("td", class_="x") == '<td class="x"></td>'


def test_tables_name_rows_and_columns():
    parsed = Parsed(table("<all>", ["", "one"], [["a", "<1"], ["b", "2"]]))
    scopes = [attributes["scope"] for tag, attributes in parsed.tags if tag == "th"]
    assert scopes == ["col", "col", "row", "row"] and parsed.texts == ["<all>", "one", "a", "<1", "b", "2"]
    assert parsed.tags[0] == ("div", {"class": "wide", "tabindex": "0", "role": "region", "aria-label": "<all>"})


def test_pictures_and_sounds_hold_what_they_show():
    figure = Figure(figsize=(3, 2))
    figure.subplots().imshow(np.arange(6.0).reshape(2, 3))
    parsed = Parsed(picture(figure, "six <squares>", "below"))
    image = dict(parsed.tags)["img"]
    assert image["alt"] == "six <squares>" and parsed.texts == ["below"]
    drawn = Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1])))
    assert drawn.format == "PNG" and drawn.size == (300, 200)
    samples = np.linspace(-1, 1, 1000)
    player = dict(Parsed(audio(samples, 8000, "a ramp")).tags)["audio"]
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(player["src"].split(",")[1])))
    assert rate == 8000 and player["aria-label"] == "a ramp"
    np.testing.assert_allclose(heard, samples, atol=1e-4)


def test_a_page_begins_with_what_is_on_it():
    parsed = Parsed(page("A & B", {"x<y": [definitions({"a": "1"})], "z": [details("more", element("p", "it"))]}))
    links = [attributes["href"] for tag, attributes in parsed.tags if tag == "a"]
    assert links == [f"#{attributes['id']}" for tag, attributes in parsed.tags if tag == "h2"]
    assert [text for text in parsed.texts if text in ("A & B", "x<y", "z")] == [
        "A & B",
        "A & B",
        "x<y",
        "z",
        "x<y",
        "z",
    ]
    assert "prefers-color-scheme:dark" in "".join(parsed.texts)
