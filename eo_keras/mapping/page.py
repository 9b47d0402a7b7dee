"""HTML page of a class map: quick look, areas, how the map was made, and its files."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras.geo.class_map import LEGEND_TAG, ClassMap
from eo_keras.mapping.areas import NO_DATA, Areas
from eo_keras.plots import class_map as figures
from eo_keras.plots import html

MOST_ZONES = 60
"""Largest number of zones in a page's table."""

_TITLES = {
    "MODEL": "model",
    "MODEL_CARD": "model card",
    "DATA_FINGERPRINT": "fingerprint of the records",
    "SCENES": "scenes",
    "LEVEL": "processing level",
    "CLOUD_MASK": "cloud mask",
    "MAP_OPTIONS": "options",
    "ATTRIBUTION": "attribution",
    "SOFTWARE": "software",
}
_UNSHOWN = (LEGEND_TAG, "TITLE", "AREA_OR_POINT")
_MOST_LISTED = 40
_CARD = "MODEL_CARD"


def title_of(class_map: ClassMap, stem: str) -> str:
    """Returns the title of a map, by its tags or else its file's name."""
    return class_map.tags.get("TITLE") or stem


def attribution_of(class_map: ClassMap) -> str:
    """Returns whom to name when a map is published, of the data of its scenes and of its model."""
    tags, notice = class_map.tags, ""
    if scenes := tags.get("SCENES"):
        found = {int(year) for year in re.findall(r"(?<!\d)(20\d\d)(?=-?[01]\d-?[0-3]\d)", scenes)}
        years = f"{min(found)}" + (f"-{max(found)}" if len(found) > 1 else "") if found else ""
        notice = f"Contains modified Copernicus Sentinel data {years}".strip()
    return ". ".join(filter(None, (notice, tags.get("ATTRIBUTION", "").rstrip(".")))) + "." * bool(notice)


def make_page(
    class_map: ClassMap, stem: str, quicklook: bytes, areas: Areas, files: Mapping[pathlib.Path, str]
) -> html.Page:
    """Makes the page of a map.

    Args:
        class_map: the map.
        stem: its name.
        quicklook: its quick look, as PNG.
        areas: the areas of its classes.
        files: what each file holds, in the order of the page.
    """
    grid = class_map.grid
    classed = float(areas.hectares[: len(class_map.legend)].sum())
    sections = [
        html.Section("Map", [_picture(class_map, quicklook, areas)]),
        html.Section("Areas", _area_blocks(areas)),
        html.Section("How it was made", _made_blocks(class_map)),
        html.Section("Files", [_files_table(files)]),
    ]
    if areas.zones:
        sections.insert(2, html.Section("Zones", _zone_blocks(areas)))
    return html.Page(
        title=title_of(class_map, stem),
        subtitle=f"{len(class_map.legend)} classes, {grid.width:,} x {grid.height:,} pixels, {classed:,.0f} ha with a "
        f"class, {_crs(grid.crs)}",
        sections=sections,
        footer=attribution_of(class_map),
    )


def _crs(crs: str) -> str:
    return crs if len(crs) < 40 else "a coordinate reference system of its own"


def _picture(class_map: ClassMap, png: bytes, areas: Areas) -> html.Picture:
    shares = areas.shares
    order = [label for label in np.argsort(-shares, kind="stable") if shares[label] > 0][:3]
    names = ", ".join(f"{class_map.legend.class_names[label]} {100 * shares[label]:.0f} %" for label in order)
    alt = (
        f"Map in the colors of its classes, with legend, scale bar and north arrow. Largest classes: {names or 'none'}"
    )
    return html.Picture(png, alt, "Drawn from overviews by the most frequent class; the file holds every pixel.")


def _area_blocks(areas: Areas) -> list[html.Text | html.Table | html.Picture]:
    legend, shares = areas.legend, areas.shares
    png = figures.class_areas_png(areas.hectares[: len(legend)], legend, "Area of each class")
    rows = [
        [name, f"{areas.hectares[label]:,.2f}", f"{100 * shares[label]:.2f}", f"{areas.pixels[label]:,}"]
        for label, name in enumerate(legend.class_names)
    ]
    rows.append([NO_DATA, f"{areas.hectares[areas.nodata]:,.2f}", "", f"{areas.pixels[areas.nodata]:,}"])
    return [
        html.Picture(png, "Bar chart of the area of each class; its numbers are in the table below"),
        html.Table(["class", "area (ha)", "share (%)", "pixels"], rows),
        html.Text(
            "These areas are counts of pixels with their area on the ground. They carry the errors of the map; areas "
            "with intervals are estimated from a sample of points (launch.assess).",
            "soft",
        ),
    ]


def _zone_blocks(areas: Areas) -> list[html.Text | html.Table]:
    classes = len(areas.legend)
    columns = ["zone", *areas.legend.class_names, NO_DATA]
    labels = [*range(classes), areas.nodata]
    rows = [
        [name, *(f"{hectares[label]:,.1f}" for label in labels)]
        for name, hectares in zip(areas.zones[:MOST_ZONES], areas.zone_hectares, strict=False)
    ]
    shown = f"the first {MOST_ZONES} of {len(areas.zones):,} zones" if len(areas.zones) > MOST_ZONES else "all zones"
    caption = f"Hectares by zone and class, {shown}. A pixel belongs to the zone that holds its center."
    return [
        html.Table(columns, rows, caption),
        *(html.Text(f"{note[0].upper()}{note[1:]}.", "warn") for note in areas.notes),
    ]


def _made_blocks(class_map: ClassMap) -> list[html.Text | html.Table]:
    tags = {name: text for name, text in class_map.tags.items() if name not in _UNSHOWN}
    if not tags:
        return [html.Text("The file does not say how it was made.", "soft")]
    named = [name for name in _TITLES if name in tags and name != _CARD]
    rows = []
    for name in [*named, *sorted(set(tags) - set(_TITLES))]:
        rows.append([_TITLES.get(name, name), _shown(_parsed(tags[name]))])
    blocks: list[html.Text | html.Table] = [html.Table([], rows, text_columns=2)]
    card = _parsed(tags.get(_CARD, ""))
    if isinstance(card, dict):
        rows = [[str(name).replace("_", " "), _shown(value)] for name, value in card.items()]
        blocks.append(html.Table([], rows, "Model card", text_columns=2))
    return blocks


def _parsed(text: str) -> Any:
    """Returns the content of a tag that is JSON, or its text."""
    if not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{str(name).replace('_', ' ')} {_shown(item)}" for name, item in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        apart = "; " if any(isinstance(item, Mapping) for item in value) else ", "
        more = f" and {len(value) - _MOST_LISTED} more" if len(value) > _MOST_LISTED else ""
        return (apart.join(_shown(item) for item in value[:_MOST_LISTED]) or "none") + more
    if value is None:
        return "not known"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _files_table(files: Mapping[pathlib.Path, str]) -> html.Table:
    rows = [[path.name, what, _size(path.stat().st_size)] for path, what in files.items()]
    return html.Table(["file", "what", "size"], rows, text_columns=2)


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    number, unit = next(
        (count / 1000**k, unit) for k, unit in ((1, "kB"), (2, "MB"), (3, "GB")) if count < 1000 ** (k + 1) or k == 3
    )
    return f"{number:.{1 if number < 100 else 0}f} {unit}"
