"""Styles of QGIS (QML) in the colors of a legend."""

from __future__ import annotations

from xml.etree import ElementTree

from eo_keras.legends.catalogue import Legend

_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_OUTLINE = "35,35,35,90"
_OUTLINE_MM = "0.08"


def categorized(legend: Legend, field: str) -> str:
    """Returns a style that draws polygons by the class that a field names.

    Args:
        legend: names and colors of the classes.
        field: the field of the class names.

    Returns:
        QML, as QGIS 3 reads it.
    """
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr=field, symbollevels="0", enableorderby="0", forceraster="0"
    )
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for label, item in enumerate(legend.classes):
        ElementTree.SubElement(
            categories, "category", value=item.name, label=item.name, symbol=str(label), type="string", render="true"
        )
        symbol = ElementTree.SubElement(symbols, "symbol", type="fill", name=str(label), alpha="1")
        layer = ElementTree.SubElement(
            symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
        )
        properties = {
            "color": ",".join(str(int(item.colour[place : place + 2], 16)) for place in (1, 3, 5)) + ",255",
            "style": "solid",
            "outline_color": _OUTLINE,
            "outline_style": "solid",
            "outline_width": _OUTLINE_MM,
            "outline_width_unit": "MM",
            "joinstyle": "bevel",
        }
        options = ElementTree.SubElement(layer, "Option", type="Map")
        for name, value in properties.items():
            ElementTree.SubElement(options, "Option", name=name, value=value, type="QString")
            # Releases before 3.20 read these.
            ElementTree.SubElement(layer, "prop", k=name, v=value)
    ElementTree.SubElement(root, "layerGeometryType").text = "2"
    return _HEAD + ElementTree.tostring(root, "unicode")


def paletted(legend: Legend) -> str:
    """Returns a style that draws the first band of a raster by its labels, as QML.

    QGIS would list all 256 entries of a TIFF's color table.
    """
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    entries = ElementTree.SubElement(renderer, "colorPalette")
    for label, item in enumerate(legend.classes):
        ElementTree.SubElement(
            entries, "paletteEntry", value=str(label), color=item.colour, label=item.name, alpha="255"
        )
    return _HEAD + ElementTree.tostring(root, "unicode")
