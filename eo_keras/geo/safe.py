"""Sentinel-2 products as delivered by ESA: a SAFE folder, or the zip that holds one, read without unpacking.

Scale and offset of digital numbers are read from the product's own metadata, `MTD_MSIL1C.xml` or `MTD_MSIL2A.xml`, and
never inferred from the date: since processing baseline 04.00 (25 January 2022) products carry an additive offset, and
older acquisitions have been reprocessed with it (Sentinel-2 Products Specification Document, RADIO_ADD_OFFSET and
BOA_ADD_OFFSET).
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from eo_keras.core import containers
from eo_keras.errors import SourceError
from eo_keras.geo import scene_names
from eo_keras.sensors.sentinel2 import BANDS, NOMINAL_ORDER, canonical_name

SCL = "SCL"
"""Name of the scene classification among a product's files."""

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
    """Returns whether a folder holds a product, by its name or its metadata file beside the folder of its granule.

    No zip is a scene of another kind. Metadata beside the bands' files themselves belong to those.
    """
    if not os.path.isdir(path):
        return containers.is_zip(path)
    if os.path.basename(os.path.normpath(path)).upper().endswith(".SAFE"):
        return True
    metadata = metadata_of(containers.members(path, depth=2))
    return any(os.path.isdir(os.path.join(path, os.path.dirname(name), "GRANULE")) for name in metadata)


def open_product(path: str | os.PathLike[str]) -> Product:
    """Reads a product's metadata and lists its image files; no image is opened.

    Args:
        path: a SAFE folder, a folder that holds one, or a zip with one.

    Raises:
        SourceError: if the metadata file is missing, damaged, or does not say what the numbers mean; if the processing
            baseline is unknown; or if there are several products or granules.
    """
    path = os.fspath(path)
    members = containers.members(path)
    metadata = metadata_of(members)
    if len(metadata) != 1:
        raise _not_one(path, members, metadata)
    return dataclasses.replace(read_metadata(path, metadata[0]), files=_image_files(path, members))


def _not_one(path: str, members: Sequence[str], metadata: Sequence[str]) -> SourceError:
    expected = "one product with its metadata"
    if metadata:
        return SourceError(
            path,
            f"it holds {len(metadata)} files MTD_MSIL1C.xml or MTD_MSIL2A.xml ({metadata[0]}, {metadata[1]})",
            expected,
            "name one of the products; of a zip, unpack it first",
        )
    if not members:
        return SourceError(path, "it is empty", expected, "download the product again")
    if inner := [name for name in members if name.lower().endswith(".zip")]:
        return SourceError(path, f"it holds other zips ({inner[0]})", expected, "unpack it, and name one of those")
    images = [name for name in members if name.lower().endswith((".jp2", ".tif", ".tiff"))]
    if images and os.path.isfile(path):
        return SourceError(
            path,
            f"it holds images ({images[0]}), but no MTD_MSIL1C.xml or MTD_MSIL2A.xml, as where products are laid out "
            "otherwise than by ESA",
            expected,
            "unpack it and name the folder of the bands' files, or the file itself where it is one",
        )
    return SourceError(
        path,
        "no MTD_MSIL1C.xml or MTD_MSIL2A.xml is in it, so that what its numbers mean is unknown",
        expected,
        "copy or download the product again",
    )


def read_metadata(path: str | os.PathLike[str], member: str) -> Product:
    """Reads scale and offsets of a product's numbers from its metadata file.

    Args:
        path: a folder or zip.
        member: the file's path in it.

    Returns:
        The product, without image files.

    Raises:
        SourceError: if the file is damaged, is of no product, or does not say what the numbers mean.
    """
    path = os.fspath(path)
    where = f"{path}: {member}"
    root = _parse(containers.read_member(path, member, _MOST_BYTES), where)
    level = _LEVELS.get(_text(root, "PRODUCT_TYPE", where))
    if level is None:
        raise SourceError(
            where, f"PRODUCT_TYPE is {_text(root, 'PRODUCT_TYPE', where)}", f"one of {', '.join(_LEVELS)}"
        )
    baseline = _baseline(root, where)
    kind = "BOA" if level == "L2A" else "RADIO"
    # The second names are those of 2017, of PRODUCT_TYPE S2MSI2Ap and of Sen2Cor 2.3 and 2.4.
    quantification, uri = ("QUANTIFICATION_VALUE",), ("PRODUCT_URI",)
    if level == "L2A":
        quantification = ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
        uri = ("PRODUCT_URI", "PRODUCT_URI_2A")
    special = {
        _text(item, "SPECIAL_VALUE_TEXT", where): int(_number(item, "SPECIAL_VALUE_INDEX", where))
        for item in root.iter()
        if _tag(item) == "Special_Values"
    }
    return Product(
        path=path,
        name=_text(root, _held(root, uri), where).removesuffix(".SAFE"),
        level=level,
        date=_date(_text(root, "PRODUCT_START_TIME", where), where),
        baseline=baseline,
        quantification=_positive(root, _held(root, quantification), where),
        offsets=_offsets(root, f"{kind}_ADD_OFFSET", baseline, where),
        nodata=special.get("NODATA", 0),
        saturated=special.get("SATURATED"),
        files={},
    )


def _held(root: ElementTree.Element, tags: Sequence[str]) -> str:
    """Returns the first of the tags that exists, or else the first of all."""
    there = {_tag(item) for item in root.iter()}
    return next((tag for tag in tags if tag in there), tags[0])


def metadata_of(members: Sequence[str]) -> list[str]:
    """Returns the metadata files of whole products among the files of a folder or zip."""
    return [name for name in members if _METADATA.search(name) and "/GRANULE/" not in f"/{name}"]


def _parse(data: bytes, where: str) -> ElementTree.Element:
    try:
        # A document type could declare entities, which name files and hosts or grow without limit.
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


def _positive(root: ElementTree.Element, tag: str, where: str) -> float:
    value = _number(root, tag, where)
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
    offsets = {}
    for item in root.iter():
        if _tag(item) == tag:
            name = names.get(item.get("band_id"))
            if name not in BANDS:
                raise SourceError(where, f"{tag} has band_id {item.get('band_id')!r}", "the number of a band")
            try:
                offsets[name] = float(item.text or "")
            except ValueError:
                raise SourceError(where, f"{tag} of {name} is {item.text!r}", "a number") from None
    if not offsets and not scene_names.after_offset(baseline):
        return dict.fromkeys(BANDS, 0.0)
    level = "L2A" if tag.startswith("BOA") else "L1C"
    if missing := [name for name, band in BANDS.items() if name not in offsets and level in band.levels]:
        raise SourceError(
            where,
            f"processing baseline {baseline}, but no {tag} of {','.join(missing)}",
            "the offset of every band",
            "copy or download the product again; the offset cannot be guessed",
        )
    return offsets


def _image_files(path: str, members: Sequence[str]) -> dict[str, tuple[str, ...]]:
    images = [(member, match) for member in members if (match := _IMAGE.search(f"/{member}"))]
    if (granules := len({match[1] for _, match in images})) > 1:
        raise SourceError(
            path,
            f"it holds {granules} granules, as products had before December 2016",
            "a product of one tile",
            "cut it into products of one granule, or download those of a later processing",
        )
    by_size: dict[str, dict[int, str]] = {}
    for member, match in images:
        name = match[2].upper()
        if name in BANDS or name == SCL:
            size = int(match[3]) if match[3] else BANDS[name].resolution_m
            if (other := by_size.setdefault(name, {}).setdefault(size, member)) != member:
                both = f"{other} and {member} are both {name} at {size} m"
                raise SourceError(path, both, "one file each", "move one of them out of the product")
    if not by_size:
        raise SourceError(
            path, "no band images are below GRANULE/*/IMG_DATA", "the whole product", "copy or download it again"
        )
    return {
        name: tuple(containers.gdal_path(path, file) for _, file in sorted(files.items()))
        for name, files in by_size.items()
    }
