"""Crosswalks from the codes of Urban Atlas to the labels of a legend.

| edition | codes | source |
| --- | --- | --- |
| 2006 | 20000 and 30000 in place of 21000 to 40000 | EEA, Urban Atlas Mapping Guide v6.3 |
| 2012, 2018 | those of `TITLES`; 25000 is missing from the guide's table | that guide; ua2012.json, ua2018.json |
| 2021 | 14110, 14120, 14130 in place of 14100 and 25000; early deliveries as 2018 | clms_ua_lcu_s2021_v025ha.json |
| 2024 | 14110, 14120, 14130 in place of 14100 | clms_ua_lcu_s2024_v025ha.json |

The JSON files are those that EEA checks deliveries by: github.com/eea/copernicus_quality_tools, product_definitions.
Every map understands the codes of every edition.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras.errors import LegendError, OptionError, SourceError
from eo_keras.legends.catalogue import EUROSAT, HSL4, HSL8, IGNORE, URBAN_ATLAS, Legend, LegendClass

TITLES: dict[str, str] = {
    "11100": "Continuous urban fabric (S.L. > 80%)",
    "11210": "Discontinuous dense urban fabric (S.L. 50% - 80%)",
    "11220": "Discontinuous medium density urban fabric (S.L. 30% - 50%)",
    "11230": "Discontinuous low density urban fabric (S.L. 10% - 30%)",
    "11240": "Discontinuous very low density urban fabric (S.L. < 10%)",
    "11300": "Isolated structures",
    "12100": "Industrial, commercial, public, military and private units",
    "12210": "Fast transit roads and associated land",
    "12220": "Other roads and associated land",
    "12230": "Railways and associated land",
    "12300": "Port areas",
    "12400": "Airports",
    "13100": "Mineral extraction and dump sites",
    "13300": "Construction sites",
    "13400": "Land without current use",
    "14100": "Green urban areas",
    "14200": "Sports and leisure facilities",
    "21000": "Arable land (annual crops)",
    "22000": "Permanent crops",
    "23000": "Pastures",
    "24000": "Complex and mixed cultivation patterns",
    "25000": "Orchards at the fringe of urban classes",
    "31000": "Forests",
    "32000": "Herbaceous vegetation associations",
    "33000": "Open spaces with little or no vegetation",
    "40000": "Wetlands",
    "50000": "Water",
    "91000": "No data (clouds and shadows)",
    "92000": "No data (missing imagery)",
}
"""All 29 codes: 27 of land use, in the order of `eo_keras.legends.catalogue.URBAN_ATLAS`, and two of no data."""

NO_DATA = ("91000", "92000")

COARSE: dict[str, str] = {
    "20000": "Agricultural, semi-natural areas and wetlands",
    "30000": "Forests",
}
"""Codes of 2006 that later years divide."""

DIVIDED: dict[str, str] = {"14110": "14100", "14120": "14100", "14130": "14100"}
"""Codes of 2021 and later by the one that they divide: green urban areas are public, private or unknown."""

NARROW_ROADS = "12220"
"""The code of roads of 6 to 12 m, about one pixel of Sentinel-2."""

ROADS = ("merge", "ignore", "keep")
"""Treatments of narrow roads: the class beside them, no class, or that of their code."""

MOST_CLASSES = 254
"""255 is `IGNORE`, and 254 stands for roads while they are merged."""

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_CODE = re.compile(r"[0-9]{5}")
_REMEDY = "fix the legend's file"


@dataclasses.dataclass(frozen=True)
class Crosswalk:
    """Labels of the codes of Urban Atlas.

    Attributes:
        name: its name.
        legend: the classes.
        labels: a label of the legend, or `IGNORE`, by code.
    """

    name: str
    legend: Legend
    labels: Mapping[str, int]

    def label(self, code: str) -> int:
        """Returns the label of a code, or `IGNORE`.

        Raises:
            LegendError: if the map does not know it.
        """
        if code not in self.labels:
            raise LegendError(f"legend '{self.name}'", f"it does not know the code '{code}'", _expected(code))
        return self.labels[code]

    def labels_of(self, codes: np.ndarray, source: str) -> np.ndarray:
        """Returns the labels of the codes of many polygons.

        Args:
            codes: str (N,).
            source: where they come from, for errors.

        Returns:
            uint8 (N,).

        Raises:
            SourceError: if the map does not know a code.
        """
        known, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
        unknown = {
            code: f"'{code}' of {count} polygon{'s' if count > 1 else ''}"
            for code, count in zip(known.tolist(), counts.tolist(), strict=True)
            if code not in self.labels
        }
        if unknown:
            several = len(unknown) > 1
            them = "them" if several else "it"
            remedy = f"correct the codes, or add {them} to ignore in a legend file of your own"
            if all(map(_is_known, unknown)):
                remedy = f"name a class for {them}, or ignore {them}, in a legend file of your own"
            elif not all(map(_CODE.fullmatch, unknown)):
                remedy = "correct the codes, or remove these polygons"
            raise SourceError(
                source,
                f"the code{'s' if several else ''} {', '.join(unknown.values())} {'are' if several else 'is'} unknown "
                f"to legend '{self.name}'",
                _expected(next(iter(unknown))),
                remedy,
            )
        return np.array([self.labels[code] for code in known.tolist()], np.uint8)[places]


def _is_known(code: str) -> bool:
    """Returns whether an edition of Urban Atlas has a code."""
    return code in TITLES or code in COARSE or code in DIVIDED


def _expected(code: str) -> str:
    return "codes that the legend's file names" if _is_known(code) else "a code of Urban Atlas, such as 11100"


def _with_divided(labels: Mapping[str, int]) -> dict[str, int]:
    """Adds codes that are not in a crosswalk, but whose labels follow from its codes.

    A code that divides another becomes what that one does. One that is divided becomes what its parts do, where they
    are of one class.
    """
    whole = dict(labels)
    for divided in dict.fromkeys(DIVIDED.values()):
        parts = [code for code, of in DIVIDED.items() if of == divided]
        if divided in whole:
            whole |= {code: whole[divided] for code in parts if code not in whole}
        elif len(targets := {whole.get(code) for code in parts}) == 1 and None not in targets:
            whole[divided] = targets.pop()
    return whole


def _from_classes(name: str, legend: Legend, classes: Mapping[str, Iterable[str]], ignored: Iterable[str]) -> Crosswalk:
    labels = {code: legend.label_of(class_name) for class_name, codes in classes.items() for code in codes}
    return Crosswalk(name, legend, _with_divided({**labels, **dict.fromkeys((*ignored, *NO_DATA), IGNORE)}))


_FABRIC = ("11100", "11210", "11220", "11230", "11240")
_INDUSTRIAL = ("12100", "12300", "12400", "13100", "13300")
_TRANSPORT = ("12210", "12220", "12230")
_GREEN = ("14100", "14200")
_AGRICULTURE = ("21000", "22000", "23000", "24000", "25000")
_NATURAL = ("32000", "33000", "40000")

CODE_MAPS: dict[str, Crosswalk] = {
    "hsl4": _from_classes(
        "hsl4",
        HSL4,
        {
            "Other": (*_TRANSPORT, "13400", *_GREEN, *_AGRICULTURE, *_NATURAL, "50000", "20000"),
            "Residential": (*_FABRIC, "11300"),
            "Industrial": _INDUSTRIAL,
            "Forest": ("31000", "30000"),
        },
        (),
    ),
    "hsl8": _from_classes(
        "hsl8",
        HSL8,
        {
            "Residential": (*_FABRIC, "11300"),
            "Industrial": (*_INDUSTRIAL, "13400"),
            "Transport": _TRANSPORT,
            "GreenLeisure": _GREEN,
            "Agriculture": _AGRICULTURE,
            "Forest": ("31000", "30000"),
            "Natural": _NATURAL,
            "Water": ("50000",),
        },
        # Fields, heath and wetlands together.
        ("20000",),
    ),
    "eurosat10": _from_classes(
        "eurosat10",
        EUROSAT,
        {
            "AnnualCrop": ("21000",),
            "Forest": ("31000", "30000"),
            "HerbaceousVegetation": ("32000",),
            "Highway": ("12210",),
            "Industrial": ("12100",),
            "Pasture": ("23000",),
            "PermanentCrop": ("22000", "25000"),
            "Residential": _FABRIC,
            # Rivers too: Urban Atlas does not tell them apart.
            "SeaLake": ("50000",),
        },
        (
            *("11300", "12220", "12230", "12300", "12400", "13100", "13300", "13400"),
            *(*_GREEN, "24000", "33000", "40000", "20000"),
        ),
    ),
    "full": Crosswalk(
        "full",
        URBAN_ATLAS,
        _with_divided(
            {
                **{code: label for label, code in enumerate(code for code in TITLES if code not in NO_DATA)},
                **dict.fromkeys((*NO_DATA, "20000"), IGNORE),
                "30000": URBAN_ATLAS.label_of("Forests"),
            }
        ),
    ),
}
"""Crosswalks by name. Each has the codes of every edition."""


def code_map(name: str | os.PathLike[str]) -> Crosswalk:
    """Returns a crosswalk by its name, or reads it from a JSON file.

    The file says of every one of the 29 codes of `TITLES` what it becomes; `ignore` lists those without a class. The
    coarse codes of 2006 may be named too. 14110, 14120 and 14130 become what 14100 does, unless they are named; where
    all three are, 14100 need not be. Under `ignore` any number of five digits may stand::

        {"name": "two", "ignore": ["91000", "92000", ...],
         "classes": [{"name": "BuiltUp", "colour": "#ff0000", "codes": ["11100", ...]}, ...]}

    Raises:
        OptionError: if there is neither a map nor a file of this name.
        LegendError: if the file is not of that form, or leaves a code out.
    """
    if name in CODE_MAPS:
        return CODE_MAPS[name]
    path = pathlib.Path(name)
    if not path.is_file():
        raise OptionError(f"legend '{name}'", "there is no such legend or file", f"{', '.join(CODE_MAPS)}, or a file")
    try:
        stored = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise LegendError(path, f"it cannot be read ({error})", "JSON in UTF-8", _REMEDY) from None
    return _parsed(path, stored)


def _parsed(path: pathlib.Path, stored: Any) -> Crosswalk:
    _check_keys(path, "it", stored, ("name", "classes", "ignore"), optional=("ignore",))
    name, classes, ignored = stored["name"], stored["classes"], stored.get("ignore", [])
    if not isinstance(name, str) or not name.strip():
        raise LegendError(path, f"its name is {_shown(name)}", "text", _REMEDY)
    if not isinstance(classes, list) or not 2 <= len(classes) <= MOST_CLASSES:
        raise LegendError(path, f"its classes are {_shown(classes)}", f"a list of 2 to {MOST_CLASSES}", _REMEDY)
    legend_classes: list[LegendClass] = []
    labels: dict[str, int] = {}
    for label, item in enumerate(classes):
        _check_keys(path, f"class {label + 1}", item, ("name", "colour", "codes"))
        class_name, colour = item["name"], item["colour"]
        if not isinstance(class_name, str) or not class_name.strip():
            raise LegendError(path, f"the name of class {label + 1} is {_shown(class_name)}", "text", _REMEDY)
        if class_name in (other.name for other in legend_classes):
            raise LegendError(path, f"two classes are called '{class_name}'", "different names", _REMEDY)
        if not isinstance(colour, str) or not _COLOUR.fullmatch(colour):
            raise LegendError(path, f"the colour of '{class_name}' is {_shown(colour)}", "one such as #ff0000", _REMEDY)
        legend_classes.append(LegendClass(class_name, colour.lower()))
        _add(path, labels, item["codes"], label, f"'{class_name}'")
    _add(path, labels, ignored, IGNORE, "ignore")
    labels = _with_divided(labels)
    replaced = {code for code in DIVIDED.values() if all(part in labels for part, of in DIVIDED.items() if of == code)}
    if missing := [code for code in TITLES if code not in labels and code not in replaced]:
        raise LegendError(
            path,
            f"it does not say what becomes of {', '.join(missing)}",
            "every code of Urban Atlas",
            f"give {missing[0]} ({TITLES[missing[0]]}) to a class, or add it to ignore",
        )
    return Crosswalk(name, Legend(name, tuple(legend_classes)), labels)


def _add(path: pathlib.Path, labels: dict[str, int], codes: Any, label: int, where: str) -> None:
    if not isinstance(codes, list):
        raise LegendError(path, f"the codes of {where} are {_shown(codes)}", "a list", _REMEDY)
    for code in map(str, codes):
        if not _is_known(code) and not (label == IGNORE and _CODE.fullmatch(code)):
            raise LegendError(path, f"{where} has the unknown code '{code}'", "codes of Urban Atlas", _REMEDY)
        if code in labels:
            raise LegendError(path, f"the code {code} is there twice", "every code once", _REMEDY)
        if code in NO_DATA and label != IGNORE:
            raise LegendError(path, f"{where} has {code}, {TITLES[code]}", "that code under ignore", _REMEDY)
        labels[code] = label


def _check_keys(path: pathlib.Path, what: str, value: Any, names: Sequence[str], optional: Sequence[str] = ()) -> None:
    if not isinstance(value, dict):
        raise LegendError(path, f"{what} is {_shown(value)}", f"an object with {', '.join(names)}", _REMEDY)
    if missing := [name for name in names if name not in value and name not in optional]:
        raise LegendError(path, f"{what} has no {', '.join(missing)}", f"{', '.join(names)}", _REMEDY)
    if unknown := [name for name in value if name not in names]:
        raise LegendError(path, f"{what} has an unknown {', '.join(unknown)}", f"{', '.join(names)}", _REMEDY)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
