"""Metadata of a Sentinel-2 product in files beside and above a raster: scale and offset of its numbers.

Looked for are, in this order: the SAFE folder or zip that a file lies in, a STAC item beside it (Earth Search,
Planetary Computer, others), a product's metadata beside it, and `tileInfo.json` and `productInfo.json` of the public
buckets `sentinel-s2-l1c` and `-l2a`. Metadata of another tile or day than the file's own name says are not the file's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eo_keras.core import containers
from eo_keras.errors import SourceError
from eo_keras.geo import safe, scene_names
from eo_keras.sensors.sentinel2 import BANDS, QUANTIFICATION, canonical_name

_HIGHEST = 6
"""Number of folders above a file that are searched: a product's images lie four folders below its metadata."""

_OFFSET = -1000.0
"""The offset of every band of products since processing baseline 04.00, where their metadata are missing."""

_MOST_BYTES = 2**25
_PRODUCT_METADATA = re.compile(r"(MTD_MSIL(1C|2A)|product_metadata|^metadata)\.xml$")
_LISTS = ("tileInfo.json", "productInfo.json")
_LEVELS = {"S2MSI1C": "L1C", "S2MSI2A": "L2A", "S2MSI2AP": "L2A", "L1C": "L1C", "L2A": "L2A"}
_RESOLUTION_FOLDER = re.compile(r"R\d+m$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Statement:
    """Metadata of a scene.

    Attributes:
        source: the file that says it.
        product: the product's identifier.
        level: `L1C`, `L2A` or None.
        date: day of the acquisition, or None.
        numbers: by band, scale and offset: harmonized number = stored number x scale + offset. Empty where nothing
            is said of the numbers.
        nodata: the number that means "no data".
        saturated: the number that means "saturated", or None.
        scl: path of the scene classification as GDAL opens it, or None.
    """

    source: str
    product: str
    level: str | None
    date: datetime.date | None
    numbers: Mapping[str, tuple[float, float]]
    nodata: float = 0.0
    saturated: float | None = 65535.0
    scl: str | None = None


def find(path: str, name: str) -> Statement | None:
    """Searches the metadata of a raster file, or of a folder of bands.

    Args:
        path: the file or folder.
        name: the scene's name, which may say its tile and day.

    Raises:
        SourceError: if metadata are damaged, or it is ambiguous which ones are the file's.
    """
    for look in (_enclosing, _stac, _beside, _listed):
        statements = [statement for statement in look(path) if _is_of(statement, name)]
        if len({(statement.product, tuple(sorted(statement.numbers.items()))) for statement in statements}) > 1:
            raise SourceError(
                path,
                f"{' and '.join(sorted(statement.source for statement in statements)[:2])} may both be its metadata",
                "the metadata of one product",
                "put each scene into a folder of its own, with its metadata",
            )
        if statements:
            return statements[0]
    return None


def _is_of(statement: Statement, name: str) -> bool:
    tile, day = scene_names.tile_of(name), scene_names.date_of(name)
    other = scene_names.tile_of(statement.product)
    return not (tile and other and tile != other) and not (day and statement.date and day != statement.date)


def names_of(path: str) -> list[str]:
    """Returns the names of the folders that a file or folder lies in, the nearest first."""
    return [folder.name for folder in pathlib.Path(os.path.abspath(path)).parents][:_HIGHEST]


def _enclosing(path: str) -> Iterator[Statement]:
    here = pathlib.Path(os.path.abspath(path))
    inside = () if here.is_dir() else (here.name,)
    for folder in [*([here] if here.is_dir() else []), *here.parents][:_HIGHEST]:
        is_safe = folder.name.upper().endswith(".SAFE")
        # Without that ending, only files in the folder of the granule belong to the product.
        if is_safe or "GRANULE" in inside:
            metadata = safe.metadata_of(_names_in(folder))
            if metadata:
                yield _of_product(os.fspath(folder), metadata[0])
            if is_safe or metadata:
                return
        inside = (folder.name, *inside)


def _of_product(root: str, metadata: str) -> Statement:
    product = safe.read_metadata(root, metadata)
    scl = None
    # Products without a layout of their own have known numbers too.
    with contextlib.suppress(SourceError):
        scl = safe.open_product(root).files.get(safe.SCL, (None,))[0]
    scale = QUANTIFICATION / product.quantification
    return Statement(
        source=f"{root}: {metadata}",
        product=product.name,
        level=product.level,
        date=product.date,
        numbers={band: (scale, offset * scale) for band, offset in product.offsets.items()},
        nodata=float(product.nodata),
        saturated=None if product.saturated is None else float(product.saturated),
        scl=scl,
    )


def _folders_beside(path: str) -> list[pathlib.Path]:
    """Returns the folder that a file lies in, or that holds the bands, and the one above a folder such as `R10m`."""
    place = pathlib.Path(os.path.abspath(path))
    folder = place if place.is_dir() else place.parent
    return [folder, *([folder.parent] if _RESOLUTION_FOLDER.match(folder.name) else [])]


def _names_in(folder: pathlib.Path) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(folder))
    return []


def _beside(path: str) -> Iterator[Statement]:
    for folder in _folders_beside(path):
        for file in _names_in(folder):
            if match := _PRODUCT_METADATA.search(file):
                data = containers.read_member(folder, file, _MOST_BYTES)
                # A bucket's metadata.xml may be the granule's, which say nothing of the numbers.
                if match[2] or b"_User_Product" in data[:4096]:
                    statement = _of_product(os.fspath(folder), file)
                    yield statement if statement.scl else dataclasses.replace(statement, scl=_scl_of_bucket(folder))


def _stac(path: str) -> Iterator[Statement]:
    place = pathlib.Path(os.path.abspath(path))
    folders = _folders_beside(path)
    files = [folder / file for folder in folders for file in _names_in(folder) if file.lower().endswith(".json")]
    if place.is_dir():
        files.append(place.with_name(f"{place.name}.json"))
    items = [(file, item) for file in files for item in _items(file)]
    # Of several items in one folder, those that list the file or files; if none does, those that are named like it.
    if len(items) > 1:
        images = (
            {name for folder in _folders_beside(path) for name in _names_in(folder)} if place.is_dir() else {place.name}
        )
        listing = [(file, item) for file, item in items if images & set(map(_file_of, item["assets"].values()))]
        items = listing or [(file, item) for file, item in items if _is_named_like(item, file, place)]
    for file, item in items:
        yield _of_item(file, item, place if place.is_dir() else place.parent)


def _items(file: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the STAC items of a JSON file: one, those of a search result, or none."""
    content = _json(file)
    listed = content.get("features") if content.get("type") == "FeatureCollection" else [content]
    return [
        item
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict)
        and item.get("type") == "Feature"
        and isinstance(item.get("properties"), dict)
        and isinstance(item.get("assets"), dict)
    ]


def _json(file: pathlib.Path) -> dict[str, Any]:
    """Returns the object in a JSON file; an empty one where there is none, as in files of other programs."""
    with contextlib.suppress(OSError, ValueError, SourceError, RecursionError):
        content = json.loads(containers.read_member(file.parent, file.name, _MOST_BYTES))
        return content if isinstance(content, dict) else {}
    return {}


def _is_named_like(item: dict[str, Any], file: pathlib.Path, place: pathlib.Path) -> bool:
    stem = str(item.get("id") or file.stem)
    return re.match(rf"{re.escape(stem)}(?![A-Za-z0-9])", place.name) is not None


def _file_of(asset: Any) -> str:
    """Returns the name of an asset's file."""
    href = str(asset.get("href", "")) if isinstance(asset, dict) else ""
    return href.partition("?")[0].rpartition("/")[2]


def _of_item(file: pathlib.Path, item: dict[str, Any], folder: pathlib.Path) -> Statement:
    said = item["properties"]
    product = str(said.get("s2:product_uri") or said.get("s2:product_id") or item.get("id") or file.stem)
    product = product.removesuffix(".SAFE")
    stated = str(said.get("s2:processing_baseline") or said.get("processing:version") or "")
    if not re.fullmatch(r"\d\d\.\d\d", stated):
        stated = scene_names.baseline_of(product) or ""
    applied = next((value for key, value in said.items() if key.endswith("boa_offset_applied")), None)
    numbers, scl = {}, None
    for key, asset in item["assets"].items():
        band = _band_of(key, asset)
        if band == safe.SCL and (folder / _file_of(asset)).is_file():
            scl = os.fspath(folder / _file_of(asset))
        if band in BANDS and (scaling := _numbers_of(asset, applied, stated, str(file))) is not None:
            numbers[band] = scaling
    kind = str(said.get("s2:product_type") or said.get("processing:level") or "").upper()
    return Statement(
        source=os.fspath(file),
        product=product,
        level=_LEVELS.get(kind) or scene_names.level_of(product) or scene_names.level_of(str(item.get("collection"))),
        date=_day(said.get("datetime") or said.get("start_datetime"), os.fspath(file)),
        numbers=numbers,
        scl=scl,
    )


def _band_of(key: str, asset: Any) -> str | None:
    """Returns the band that an asset holds, by its file's name, its key, or the bands that it lists."""
    if not isinstance(asset, dict):
        return None
    listed = asset.get("eo:bands") or asset.get("bands") or []
    names = [str(band.get("name", "")) for band in listed if isinstance(band, dict)] if len(listed) == 1 else []
    stem = re.sub(r"_\d+m$", "", pathlib.PurePath(_file_of(asset)).stem)
    for name in (stem.rpartition("_")[2], re.sub(r"_\d+m$", "", key), *names):
        if (band := canonical_name(name)) in BANDS or band == safe.SCL:
            return band
    return None


def _numbers_of(asset: dict[str, Any], applied: bool | None, baseline: str, where: str) -> tuple[float, float] | None:
    """Returns scale and offset to harmonized numbers of a STAC asset, or None where they are not stated."""
    listed = asset.get("raster:bands") or asset.get("bands") or [{}]
    first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
    merged = {**asset, **first}
    scale = merged.get("scale", merged.get("raster:scale"))
    offset = merged.get("offset", merged.get("raster:offset"))
    for value in (scale, offset):
        if value is not None and not isinstance(value, int | float):
            raise SourceError(where, f"scale {scale!r} and offset {offset!r}", "numbers")
    per_number = QUANTIFICATION * (scale if scale else 1 / QUANTIFICATION)
    # Earth Search lists the product's offset where it has applied it, and where there never was one.
    if applied is True or (baseline and not scene_names.after_offset(baseline)):
        return per_number, 0.0
    if offset is not None:
        return per_number, offset * QUANTIFICATION
    if baseline:
        return per_number, _OFFSET
    return None


def _listed(path: str) -> Iterator[Statement]:
    for folder in _folders_beside(path):
        objects = [(folder / file, _json(folder / file)) for file in _LISTS if (folder / file).is_file()]
        if not any(said for _, said in objects):
            continue
        names = [str(said.get(key, "")) for _, said in objects for key in ("name", "productName", "datatakeIdentifier")]
        names += [str(strip.get("id", "")) for strip in _strips(said for _, said in objects)]
        product = next((text for text in names if "MSI" in text), "") or _tile_name(objects)
        day = next(filter(None, (_day(said.get("timestamp"), os.fspath(file)) for file, said in objects)), None)
        has_offset, _ = scene_names.has_offset([text for text in names if text])
        if has_offset is None and day is not None and day >= scene_names.OFFSET_DAY:
            has_offset = True
        # The bucket holds the product's JPEG 2000 files; a GeoTIFF beside them may hold other numbers.
        numbers = {}
        if has_offset is not None and _is_jpeg2000(path):
            numbers = dict.fromkeys(BANDS, (1.0, _OFFSET if has_offset else 0.0))
        level = scene_names.level_of(product)
        yield Statement(os.fspath(objects[0][0]), product, level, day, numbers, scl=_scl_of_bucket(folder))


def _scl_of_bucket(folder: pathlib.Path) -> str | None:
    """Returns the path of the scene classification in a copy of the public Level-2A bucket, or None."""
    path = os.fspath(folder / "R20m" / "SCL.jp2")
    return path if os.path.isfile(path) else None


def _strips(lists: Any) -> Iterator[dict[str, Any]]:
    for said in lists:
        for strip in (said.get("datastrip"), *(said.get("datastrips") or [])):
            if isinstance(strip, dict):
                yield strip


def _tile_name(objects: Sequence[tuple[pathlib.Path, dict[str, Any]]]) -> str:
    """Returns a name made of the tile's path in the bucket, such as `tiles_33_U_UU_2018_7_1_0`, or the datatake's."""
    named = (said.get(key) for key in ("path", "datatakeIdentifier") for _, said in objects)
    return next(filter(None, map(str, filter(None, named))), objects[0][0].parent.name).strip("/").replace("/", "_")


def _is_jpeg2000(path: str) -> bool:
    if os.path.isdir(path):
        return any(name.lower().endswith(".jp2") for name in _names_in(pathlib.Path(path)))
    return path.lower().endswith(".jp2")


def _day(text: Any, where: str) -> datetime.date | None:
    if not text:
        return None
    try:
        return datetime.date.fromisoformat(str(text)[:10])
    except ValueError:
        raise SourceError(where, f"the acquisition's time is {text!r}", "a date and time") from None
