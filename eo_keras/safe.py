"""Sentinel-2 products as ESA delivers them: a SAFE folder, or the zip that holds one, read without unpacking.

What a digital number means is read from the product's own metadata, `MTD_MSIL1C.xml` or `MTD_MSIL2A.xml`, and never
concluded from the date: since processing baseline 04.00 (25 January 2022) products carry an additive offset, and older
acquisitions have been processed anew with it (Sentinel-2 Products Specification Document, RADIO_ADD_OFFSET and
BOA_ADD_OFFSET).
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib
import re
import zipfile
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from eo_keras.errors import SourceError
from eo_keras.sentinel2 import BANDS, NOMINAL_ORDER, canonical_name

SCL = "SCL"
"""Name of the scene classification among a product's files."""

OFFSET_SINCE = (4, 0)
"""The first processing baseline whose products carry an offset."""

_METADATA = re.compile(r"(^|/)MTD_MSIL(1C|2A)\.xml$")
_IMAGE = re.compile(r"/GRANULE/([^/]+)/IMG_DATA/(?:R\d+m/)?[^/]+_(B\w\w|SCL)(?:_(\d+)m)?\.(?:jp2|tif)$", re.IGNORECASE)
_LEVELS = {"S2MSI1C": "L1C", "S2MSI2A": "L2A", "S2MSI2Ap": "L2A"}
_MOST_BYTES = 2**25  # Real metadata have 60 kB; larger files are something else.


@dataclasses.dataclass(frozen=True)
class Product:
    """A Sentinel-2 product of one tile.

    Attributes:
        path: the SAFE folder or the zip.
        name: the product's identifier, such as `S2B_MSIL2A_20230122T231849_N0400_R087_T01UBT_20230124T042703`.
        level: `L1C` or `L2A`.
        date: day of the acquisition.
        baseline: processing baseline, such as `04.00`.
        quantification: `reflectance = (number + offset) / quantification`.
        offsets: that offset by band name, 0 before baseline 04.00.
        nodata: the number that means "no data".
        saturated: the number that means "saturated"; None where the metadata name none.
        files: by band name, and by `SCL`, the image files as GDAL opens them, finest resolution first.
    """

    path: str
    name: str
    level: str
    date: datetime.date
    baseline: str
    quantification: float
    offsets: Mapping[str, float]
    nodata: int
    saturated: int | None
    files: Mapping[str, tuple[str, ...]]


def is_product(path: str | os.PathLike[str]) -> bool:
    """Tells whether a folder or a zip holds a product, by its name or its metadata file."""
    here = pathlib.Path(path)
    if here.is_dir():
        return here.suffix.upper() == ".SAFE" or bool(_metadata_of(_folder_members(here, depth=2)))
    if here.suffix.lower() != ".zip" or not zipfile.is_zipfile(here):
        return False
    with zipfile.ZipFile(here) as archive:
        names = archive.namelist()
    return any(".SAFE/" in name for name in names) or bool(_metadata_of(names))


def open_product(path: str | os.PathLike[str]) -> Product:
    """Reads a product's metadata and finds its image files; no image is opened.

    Args:
        path: a SAFE folder, a folder that holds one, or a zip with one.

    Raises:
        SourceError: if the metadata file is missing, damaged, or does not say what the numbers mean; if the processing
            baseline is unknown; or if there are several products or granules.
    """
    path = os.fspath(path)
    members, prefix = _members(path)
    metadata = _metadata_of(members)
    if len(metadata) != 1:
        raise SourceError(
            path,
            f"it holds {len(metadata)} files MTD_MSIL1C.xml or MTD_MSIL2A.xml"
            if metadata
            else "no MTD_MSIL1C.xml or MTD_MSIL2A.xml is in it, so that what its numbers mean is unknown",
            "one product with its metadata",
            "copy or download the product again" if not metadata else "name one of the products",
        )
    root = _parse(_read_member(path, metadata[0]), f"{path}: {metadata[0]}")
    return _product(path, f"{path}: {metadata[0]}", root, members, prefix)


def _product(path: str, where: str, root: ElementTree.Element, members: Sequence[str], prefix: str) -> Product:
    level = _LEVELS.get(_text(root, "PRODUCT_TYPE", where))
    if level is None:
        raise SourceError(
            where, f"PRODUCT_TYPE is {_text(root, 'PRODUCT_TYPE', where)}", f"one of {', '.join(_LEVELS)}"
        )
    baseline = _baseline(root, where)
    kind = "BOA" if level == "L2A" else "RADIO"
    quantification = "BOA_QUANTIFICATION_VALUE" if level == "L2A" else "QUANTIFICATION_VALUE"
    special = {
        _text(item, "SPECIAL_VALUE_TEXT", where): int(_number(item, "SPECIAL_VALUE_INDEX", where))
        for item in root.iter()
        if _tag(item) == "Special_Values"
    }
    return Product(
        path=path,
        name=_text(root, "PRODUCT_URI", where).removesuffix(".SAFE"),
        level=level,
        date=_date(_text(root, "PRODUCT_START_TIME", where), where),
        baseline=baseline,
        quantification=_positive(_number(root, quantification, where), quantification, where),
        offsets=_offsets(root, f"{kind}_ADD_OFFSET", baseline, where),
        nodata=special.get("NODATA", 0),
        saturated=special.get("SATURATED"),
        files=_image_files(path, members, prefix),
    )


def _members(path: str) -> tuple[list[str], str]:
    """Returns the names of all files inside, with `/` before each, and what GDAL wants before them."""
    here = pathlib.Path(path)
    if here.is_dir():
        return _folder_members(here), path.rstrip("/")
    try:
        with zipfile.ZipFile(here) as archive:
            return [f"/{name}" for name in archive.namelist()], f"/vsizip/{path}"
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceError(
            path, f"it cannot be read ({error})", "a SAFE folder, or a whole zip with one", "copy it again"
        ) from None


def _folder_members(folder: pathlib.Path, depth: int = 12) -> list[str]:
    found = []
    for parent, folders, names in os.walk(folder):
        inner = os.path.relpath(parent, folder)
        below = "" if inner == "." else f"/{inner}"
        if below.count("/") >= depth:
            folders.clear()
        found += [f"{below}/{name}".replace(os.sep, "/") for name in names]
    return sorted(found)


def _metadata_of(members: Sequence[str]) -> list[str]:
    return [name for name in members if _METADATA.search(name) and "/GRANULE/" not in f"/{name}"]


def _read_member(path: str, member: str) -> bytes:
    try:
        if os.path.isdir(path):
            with open(f"{path.rstrip('/')}{member}", "rb") as file:
                data = file.read(_MOST_BYTES + 1)
        else:
            with zipfile.ZipFile(path) as archive, archive.open(member.removeprefix("/")) as file:
                data = file.read(_MOST_BYTES + 1)
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise SourceError(f"{path}: {member}", f"it cannot be read ({error})", remedy="copy it again") from None
    if len(data) > _MOST_BYTES:
        raise SourceError(f"{path}: {member}", f"it has more than {_MOST_BYTES:,} bytes", "a product's metadata")
    return data


def _parse(data: bytes, where: str) -> ElementTree.Element:
    try:
        # A document type would bring entities, which can name files and hosts or grow without end.
        return defusedxml.ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise SourceError(where, f"it declares a document type or entities ({error})", "plain XML as ESA's") from None
    except (ElementTree.ParseError, ValueError) as error:
        raise SourceError(where, f"no whole XML file ({error})", "the product's metadata", "copy it again") from None


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(root: ElementTree.Element, tag: str, where: str) -> str:
    text = next((item.text for item in root.iter() if _tag(item) == tag and item.text and item.text.strip()), None)
    if text is None:
        raise SourceError(where, f"it has no {tag}", "the metadata as ESA writes them", "copy or download it again")
    return text.strip()


def _number(root: ElementTree.Element, tag: str, where: str) -> float:
    text = _text(root, tag, where)
    try:
        return float(text)
    except ValueError:
        raise SourceError(where, f"{tag} is {text!r}", "a number") from None


def _positive(value: float, tag: str, where: str) -> float:
    if not 0 < value < float("inf"):
        raise SourceError(where, f"{tag} is {value}", "a number above 0")
    return value


def _baseline(root: ElementTree.Element, where: str) -> str:
    text = _text(root, "PROCESSING_BASELINE", where)
    if not re.fullmatch(r"\d\d\.\d\d", text):
        raise SourceError(
            where,
            f"PROCESSING_BASELINE is {text!r}, so that whether the numbers carry an offset is unknown",
            "two digits, a point and two digits, such as 05.11",
            "download the product again",
        )
    return text


def _date(text: str, where: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text[:10])
    except ValueError:
        raise SourceError(where, f"PRODUCT_START_TIME is {text!r}", "a date and time") from None


def _offsets(root: ElementTree.Element, tag: str, baseline: str, where: str) -> dict[str, float]:
    """Returns the offset of every band by name."""
    names = {
        item.get("bandId"): canonical_name(item.get("physicalBand", ""))
        for item in root.iter()
        if _tag(item) == "Spectral_Information"
    }
    names = names or {str(number): name for number, name in enumerate(NOMINAL_ORDER)}
    found = {}
    for item in root.iter():
        if _tag(item) == tag:
            name = names.get(item.get("band_id"))
            if name not in BANDS:
                raise SourceError(where, f"{tag} has band_id {item.get('band_id')!r}", "the number of a band")
            try:
                found[name] = float(item.text or "")
            except ValueError:
                raise SourceError(where, f"{tag} of {name} is {item.text!r}", "a number") from None
    if not found and tuple(map(int, baseline.split("."))) < OFFSET_SINCE:
        return dict.fromkeys(BANDS, 0.0)
    level = "L2A" if tag.startswith("BOA") else "L1C"
    if missing := [name for name, band in BANDS.items() if name not in found and level in band.levels]:
        raise SourceError(
            where,
            f"processing baseline {baseline}, but no {tag} of {','.join(missing)}",
            "the offset of every band",
            "copy or download the product again; the offset cannot be guessed",
        )
    return found


def _image_files(path: str, members: Sequence[str], prefix: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[tuple[int, str]]] = {}
    granules = set()
    for member in members:
        if match := _IMAGE.search(f"/{member}".replace("//", "/")):
            granule, name, resolution = match[1], match[2].upper(), match[3]
            granules.add(granule)
            if name in BANDS or name == SCL:
                size = int(resolution) if resolution else BANDS[name].resolution_m
                found.setdefault(name, []).append((size, f"{prefix}{member}"))
    if len(granules) > 1:
        raise SourceError(
            path,
            f"it holds {len(granules)} granules, as products had before December 2016",
            "a product of one tile",
            "cut it into products of one granule, or download those of a later processing",
        )
    if not found:
        raise SourceError(
            path, "no band images are below GRANULE/*/IMG_DATA", "the whole product", "copy or download it again"
        )
    return {name: tuple(file for _, file in sorted(files)) for name, files in found.items()}
