import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from eo_keras.plots import html as pages

VOID = {"meta", "img", "br", "hr"}


def png(width=30, height=20):
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


class Reader(html.parser.HTMLParser):
    """Reads a page as strictly as XML: whatever is opened is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def values(self, tag, name):
        return [value for found, attribute, value in self.attributes if (found, attribute) == (tag, name)]


def page(text="<b>& \"quoted\" 'text'</b>", picture=None):
    blocks = [
        pages.Text(text),
        pages.Text("Look here.", "warn"),
        pages.Table(["what", text], [["rows", "1,234"], [text, "5"]], text),
        pages.Table([], [["name", "value"]], text_columns=2),
        pages.Picture(picture or png(), text, text),
    ]
    return pages.Page(text, text, [pages.Section(text, blocks), pages.Section("Second", [])], text)


def test_a_page_is_well_formed_and_its_text_is_escaped():
    hostile = "<script>alert(1)</script>\" onload='x' & $x$ é 土"
    reader = Reader(pages.render(page(hostile)))
    assert "script" not in reader.tags and "b" not in reader.tags
    assert not any(name.startswith("on") for _, name, _ in reader.attributes)
    assert "".join(reader.text).count(hostile) == 11
    assert reader.values("img", "alt") == [hostile]
    for tag in ("h1", "h2", "table", "caption", "figure", "figcaption", "nav", "main", "footer"):
        assert tag in reader.tags


def test_a_page_needs_nothing_else():
    text = pages.render(page())
    reader = Reader(text)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    for _, name, value in reader.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:image/png;base64,", "#"))
    assert "@import" not in text and "url(" not in text and "http" not in text
    names = [value for _, name, value in reader.attributes if name == "id"]
    assert reader.values("a", "href") == [f"#{name}" for name in names]


def test_a_picture_lies_inside_in_its_own_size():
    picture = png(300, 150)
    reader = Reader(pages.render(page(picture=picture)))
    (source,) = reader.values("img", "src")
    assert base64.b64decode(source.partition(",")[2]) == picture
    assert reader.values("img", "width") == ["200"] and reader.values("img", "height") == ["100"]


def test_a_page_can_be_read_on_a_phone_and_in_the_dark():
    text = pages.render(page(picture=png(3000, 100)))
    assert 'name="viewport" content="width=device-width' in text
    assert "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text
    # What is broader than a phone scrolls by itself.
    assert re.search(r'<div class="wide"[^>]*><img', text)
    assert text.count('<div class="wide" tabindex="0" role="region"') == 3


def test_colors_are_declared_in_both_schemes():
    style = re.search(r"<style>(.*?)</style>", pages.render(page()), re.DOTALL)[1]
    used = set(re.findall(r"var\((--[A-Za-z][A-Za-z-]*)\)", style))
    assert len(used) >= 8 and style.count("var(") == len(re.findall(r"var\(--[A-Za-z][A-Za-z-]*\)", style))
    for scheme in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        assert used <= set(re.findall(r"(--[A-Za-z-]+): #[0-9a-f]{6}", scheme))


def test_the_same_page_is_the_same_text():
    assert pages.render(page()) == pages.render(page())


def test_what_is_no_picture_or_table_is_refused():
    with pytest.raises(ValueError, match="no PNG"):
        pages.render(page(picture=b"\xff\xd8\xff jpeg"))
    uneven = pages.Page("t", "s", [pages.Section("a", [pages.Table(["a", "b"], [["1"]])])])
    with pytest.raises(ValueError, match="cells"):
        pages.render(uneven)
