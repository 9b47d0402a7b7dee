"""Checks of the files that a virtual raster (VRT) names, before GDAL opens it.

A VRT may name anything that GDAL can open: servers, databases, programs. Here it may name GeoTIFFs, JPEG 2000 files and
other VRTs on local disks, and images in zips there.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from xml.etree import ElementTree

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from eo_keras.core import containers
from eo_keras.errors import SourceError

_MOST_BYTES = 2**26
_DEEPEST = 8
_SOURCES = ("SourceFilename", "SourceDataset")
_CLASSES = (
    *("VRTWarpedDataset", "VRTPansharpenedDataset"),
    *("VRTSourcedRasterBand", "VRTWarpedRasterBand", "VRTPansharpenedRasterBand", "VRTDerivedRasterBand"),
)
_UNWANTED = ("PixelFunctionCode", "DEMPath", "GeoLocTransformer", "Group")
"""Code, files that a transformation needs, and multidimensional data."""

_ZIP = "/vsizip/"
_REMOTE = re.compile(r"://|/vsi")
_ELSEWHERE = re.compile(rf"://|(?!^{_ZIP})/vsi|^\s*<|^\w{{2,}}:")
"""Names that are no local paths: URLs, GDAL's other file systems, whole documents, and prefixes of drivers."""

_FILES = "GeoTIFFs, JPEG 2000 files or VRTs on a local disk"


def check(path: str | os.PathLike[str], open_source: Callable[[str], None], inside: str | None = None) -> None:
    """Checks all names in a VRT.

    Args:
        path: the VRT.
        open_source: opens a source that is no VRT, and raises an error if it cannot be used.
        inside: a folder that the sources must lie in; None for any.

    Raises:
        SourceError: if the VRT is damaged, names other things than local rasters, or one that is not there.
    """
    _check(os.path.abspath(path), open_source, inside and os.path.realpath(inside), 0)


def sources_of(path: str | os.PathLike[str]) -> list[str]:
    """Lists the source files of a VRT and of the VRTs among them, as GDAL opens them.

    Raises:
        SourceError: see `check`.
    """
    paths: set[str] = set()
    check(path, paths.add)
    return sorted(paths)


def _check(path: str, open_source: Callable[[str], None], inside: str | None, depth: int) -> None:
    status = os.stat(path)
    for source in _sources(path, status.st_size, status.st_mtime_ns):
        file = containers.place_of(source)[0]
        if inside is not None and os.path.commonpath([inside, os.path.realpath(file)]) != inside:
            raise SourceError(
                path,
                f"it names {source}, outside of the folder {inside}",
                "sources in the same folder",
                "name one VRT of all bands as the scene (gdalbuildvrt -separate), or copy the files into the folder",
            )
        if not os.path.isfile(file):
            raise SourceError(
                path, f"it names {source}, which is not there", _FILES, "copy it there, or write the VRT again"
            )
        if file != source or not source.lower().endswith(".vrt"):
            open_source(source)
        elif depth >= _DEEPEST:
            raise SourceError(path, f"it is nested more than {_DEEPEST} deep", "VRTs of files", "make one VRT of them")
        else:
            _check(source, open_source, inside, depth + 1)


@functools.lru_cache(maxsize=256)
def _sources(path: str, size: int, changed: int) -> tuple[str, ...]:
    """Returns the files that a VRT of this size and time of change names."""
    root = _parsed(path, size)
    if root.tag != "VRTDataset":
        raise SourceError(path, f"its outermost element is {root.tag}", "a VRT (VRTDataset)", "name another file")
    paths = []
    for element in root.iter():
        if element.tag in _UNWANTED or element.get("subClass", _CLASSES[0]) not in _CLASSES:
            raise SourceError(
                path,
                f"it has the element {element.tag} {element.get('subClass', '')}".strip(),
                f"a mosaic, bands or a warp of {_FILES}",
                "make a GeoTIFF of it by gdal_translate, and name that",
            )
        text = (element.text or "").strip()
        # Outside of sources, a colon may be part of names and remarks.
        pattern = _ELSEWHERE if element.tag in _SOURCES else _REMOTE
        if where := next(filter(pattern.search, (text, *element.attrib.values())), None):
            raise SourceError(
                path,
                f"it names {where[:80]!r}, which is no file on a local disk",
                _FILES,
                "download what it names, and name the local files",
            )
        if element.tag in _SOURCES:
            relative = element.get("relativeToVRT", element.get("relativetoVRT", "0")) == "1"
            folder = os.path.dirname(path) if relative else ""
            paths.append(text if text.startswith(_ZIP) else os.path.abspath(os.path.join(folder, text)))
    return tuple(dict.fromkeys(paths))


def _parsed(path: str, size: int) -> ElementTree.Element:
    expected, remedy = "a VRT", "write or copy it again"
    if size > _MOST_BYTES:
        raise SourceError(path, f"it has {size:,} bytes", expected, remedy)
    try:
        return defusedxml.ElementTree.parse(path, forbid_dtd=True).getroot()
    except DefusedXmlException as error:
        raise SourceError(path, f"it declares a document type or entities ({error})", expected, remedy) from None
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise SourceError(path, f"no whole XML file ({error})", expected, remedy) from None
