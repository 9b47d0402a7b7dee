"""HTML pages in single files with embedded images, without scripts, external style sheets or fonts.

A page is made of frozen dataclasses and turned into text by `render`. All text is escaped; pictures are PNG bytes and
go into the file as data. Such a page opens offline and from a mail, on a phone and on a wide screen, light or dark as
the reader's system is set to.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import struct
from collections.abc import Sequence

_BROAD = 720
"""Width in pixels above which pictures scroll sideways on a phone; narrower ones shrink to its width."""

_STYLE = """
:root { color-scheme: light dark; --Text: #1c2024; --Soft: #5c656e; --Ground: #ffffff; --Panel: #f4f6f8;
  --Line: #d9dee3; --Accent: #1b5e9b; --Warn: #fff3d6; --Warn-line: #c98a00 }
@media (prefers-color-scheme: dark) { :root { --Text: #e6e9ec; --Soft: #a3adb6; --Ground: #14181c; --Panel: #1e242a;
  --Line: #36404a; --Accent: #82b8ea; --Warn: #3a2f12; --Warn-line: #d9a42c } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 66rem; background: var(--Ground); color: var(--Text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.4rem 0 0.2rem; overflow-wrap: anywhere }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.6rem; padding-top: 0.7rem; border-top: 1px solid var(--Line) }
p { margin: 0.5rem 0; max-width: 46rem; overflow-wrap: anywhere }
.soft, figcaption, caption { color: var(--Soft); font-size: 0.92rem }
.warn { background: var(--Warn); border-left: 4px solid var(--Warn-line); padding: 0.5rem 0.8rem; max-width: 46rem }
nav { display: flex; flex-wrap: wrap; gap: 0.3rem 1rem; margin: 0.8rem 0 }
a { color: var(--Accent) }
.wide { overflow-x: auto; margin: 0.8rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { text-align: left; padding-bottom: 0.3rem }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid var(--Line); text-align: right; vertical-align: top }
th { font-weight: 600 }
thead th { background: var(--Panel); vertical-align: bottom }
td.text, th.text { text-align: left }
td:not(.text) { white-space: nowrap }
.facts td { overflow-wrap: anywhere }
.facts td:first-child { overflow-wrap: normal }
figure { margin: 1rem 0 }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--Line);
  border-radius: 10px; padding: 6px }
@media (prefers-color-scheme: dark) { figure img { filter: brightness(0.86) } }
figure .wide { margin: 0 }
.wide img { min-width: 36rem }
footer { margin-top: 2.5rem; padding-top: 0.7rem; border-top: 1px solid var(--Line); overflow-wrap: anywhere }
@media (max-width: 34rem) { th, td { padding: 0.25rem 0.4rem; font-size: 0.9rem } }
""".strip()


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `kind` is `plain`, `soft` (in the background) or `warn` (to be noticed)."""

    text: str
    kind: str = "plain"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: the head; empty for a table of names and values without one, whose long values are broken.
        rows: cells as text, as many in each row.
        caption: description of the table.
        text_columns: number of columns from the left that hold words; the others are numbers, set to the right.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text_columns: int = 1

    def lines(self) -> list[str]:
        """Returns the table as lines of text for a terminal, columns padded."""
        rows = [self.columns, *self.rows]
        widths = [max(len(row[place]) for row in rows) for place in range(len(self.columns))]
        return [
            "  ".join(
                cell.ljust(width) if place < self.text_columns else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image.

    Attributes:
        png: the bytes of a PNG file.
        alt: description for readers who cannot see it.
        caption: text below it.
        dots_per_pixel: most dots of the image in one pixel of the page; figures are drawn
            finer than that, so that they stay sharp on screens of high resolution.
    """

    png: bytes
    alt: str
    caption: str = ""
    dots_per_pixel: float = 1.5


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a page, with a title."""

    title: str
    blocks: Sequence[Text | Table | Picture]


@dataclasses.dataclass(frozen=True)
class Page:
    """A page: title, a line below it, sections, a last line."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    footer: str = ""


def render(page: Page) -> str:
    """Returns a page as HTML; the same page always gives the same text.

    Raises:
        ValueError: if a picture is no PNG, or the rows of a table differ in length.
    """
    names = [f"part-{number}" for number in range(1, len(page.sections) + 1)]
    links = [
        f'<a href="#{name}">{html.escape(part.title)}</a>' for name, part in zip(names, page.sections, strict=True)
    ]
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(page.title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        "</head>",
        "<body>",
        f"<h1>{html.escape(page.title)}</h1>",
        f'<p class="soft">{html.escape(page.subtitle)}</p>',
        f"<nav>{' '.join(links)}</nav>",
        "<main>",
    ]
    for name, part in zip(names, page.sections, strict=True):
        lines += [f'<section id="{name}">', f"<h2>{html.escape(part.title)}</h2>"]
        lines += [_block(block) for block in part.blocks]
        lines.append("</section>")
    lines.append("</main>")
    if page.footer:
        lines.append(f'<footer class="soft">{html.escape(page.footer)}</footer>')
    return "\n".join([*lines, "</body>", "</html>", ""])


def _block(block: Text | Table | Picture) -> str:
    if isinstance(block, Text):
        return _text(block)
    return _table(block) if isinstance(block, Table) else _picture(block)


def _text(block: Text) -> str:
    kind = "" if block.kind == "plain" else f' class="{html.escape(block.kind)}"'
    return f"<p{kind}>{html.escape(block.text)}</p>"


def _table(block: Table) -> str:
    width = {len(row) for row in block.rows} | ({len(block.columns)} if block.columns else set())
    if len(width) > 1:
        raise ValueError(f"a table has rows of {sorted(width)} cells")

    def cells(kind: str, row: Sequence[str], scope: str = "") -> str:
        classes = [' class="text"' if place < block.text_columns else "" for place in range(len(row))]
        tags = [f"<{kind}{scope}{c}>{html.escape(cell)}</{kind}>" for c, cell in zip(classes, row, strict=True)]
        return f"<tr>{''.join(tags)}</tr>"

    # Scrolls by itself on a narrow screen; by keyboard too.
    label = html.escape(block.caption or "table")
    table = "<table>" if block.columns else '<table class="facts">'
    lines = [f'<div class="wide" tabindex="0" role="region" aria-label="{label}">', table]
    if block.caption:
        lines.append(f"<caption>{html.escape(block.caption)}</caption>")
    if block.columns:
        head = cells("th", block.columns, ' scope="col"')
        lines.append(f"<thead>{head}</thead>")
    lines += ["<tbody>", *(cells("td", row) for row in block.rows), "</tbody>", "</table>", "</div>"]
    return "\n".join(lines)


def _picture(block: Picture) -> str:
    if not block.png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("a picture of a page is no PNG")
    width, height = struct.unpack(">II", block.png[16:24])
    width, height = (max(1, round(side / block.dots_per_pixel)) for side in (width, height))
    data = base64.b64encode(block.png).decode("ascii")
    image = (
        f'<img src="data:image/png;base64,{data}" alt="{html.escape(block.alt)}" width="{width}" height="{height}" />'
    )
    if width > _BROAD:
        image = f'<div class="wide" tabindex="0" role="region" aria-label="{html.escape(block.alt)}">{image}</div>'
    caption = f"<figcaption>{html.escape(block.caption)}</figcaption>" if block.caption else ""
    return f"<figure>{image}{caption}</figure>"
