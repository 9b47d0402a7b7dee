"""Class legends: names, codes and colors of classes.

A legend's order is the order of the model's outputs. Colors are `#rrggbb`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from eo_keras.errors import LegendError

IGNORE = 255
"""Label of pixels without a class, or with one that is ignored; losses and scores leave it out."""


@dataclasses.dataclass(frozen=True)
class LegendClass:
    """One class: its name in the data set, and its color in figures."""

    name: str
    colour: str


@dataclasses.dataclass(frozen=True)
class Legend:
    """Ordered list of classes; the index of a class is its label."""

    name: str
    classes: tuple[LegendClass, ...]

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(item.name for item in self.classes)

    @property
    def colours(self) -> tuple[str, ...]:
        """Colors in label order."""
        return tuple(item.colour for item in self.classes)

    @property
    def rgb(self) -> tuple[tuple[int, int, int], ...]:
        """Red, green and blue of each color, 0 to 255, in label order."""
        return tuple(tuple(int(color[place : place + 2], 16) for place in (1, 3, 5)) for color in self.colours)

    def __len__(self) -> int:
        return len(self.classes)

    def label_of(self, class_name: str) -> int:
        """Returns the label of a class.

        Raises:
            LegendError: if the legend has no such class.
        """
        try:
            return self.class_names.index(class_name)
        except ValueError:
            raise LegendError(
                f"legend '{self.name}'", f"it has no class '{class_name}'", ", ".join(self.class_names)
            ) from None


def check_same_classes(found: Legend, expected: Legend, where: str) -> None:
    """Checks that two legends have the same classes in the same order.

    Raises:
        LegendError: if they differ; the first difference is named.
    """
    if found.class_names == expected.class_names:
        return
    raise LegendError(
        where,
        f"its legend '{found.name}' has the classes {_listed(found.class_names)}",
        f"those of legend '{expected.name}', in this order: {_listed(expected.class_names)}",
        "use records and a run that were made with the same legend",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


EUROSAT = Legend(
    "eurosat",
    (
        # Alphabetical: the label order of TFDS and torchgeo. The colors follow CORINE's where it has the class.
        LegendClass("AnnualCrop", "#ffffa8"),
        LegendClass("Forest", "#00a600"),
        LegendClass("HerbaceousVegetation", "#a6e64d"),
        LegendClass("Highway", "#cc0000"),
        LegendClass("Industrial", "#cc4df2"),
        LegendClass("Pasture", "#e6e64d"),
        LegendClass("PermanentCrop", "#e68000"),
        LegendClass("Residential", "#ff0000"),
        LegendClass("River", "#00ccf2"),
        LegendClass("SeaLake", "#0050c8"),
    ),
)
"""The ten classes of EuroSAT (Helber et al. 2019)."""

HSL4 = Legend(
    "hsl4",
    (
        LegendClass("Other", "#d9d9d9"),
        LegendClass("Residential", "#ff0000"),
        LegendClass("Industrial", "#cc4df2"),
        LegendClass("Forest", "#00a600"),
    ),
)
"""The human settlement layer in four classes."""

HSL8 = Legend(
    "hsl8",
    (
        LegendClass("Residential", "#ff0000"),
        LegendClass("Industrial", "#cc4df2"),
        LegendClass("Transport", "#828587"),
        LegendClass("GreenLeisure", "#ffa6ff"),
        LegendClass("Agriculture", "#ffffa8"),
        LegendClass("Forest", "#00a600"),
        LegendClass("Natural", "#ccf24d"),
        LegendClass("Water", "#00ccf2"),
    ),
)
"""The human settlement layer in eight classes."""

URBAN_ATLAS = Legend(
    "urban_atlas",
    (
        # In the order of the codes. Built-up land has Urban Atlas's own colors, open land CORINE's.
        LegendClass("Continuous urban fabric", "#a03037"),
        LegendClass("Discontinuous dense urban fabric", "#ce2430"),
        LegendClass("Discontinuous medium density urban fabric", "#ee2427"),
        LegendClass("Discontinuous low density urban fabric", "#f6997c"),
        LegendClass("Discontinuous very low density urban fabric", "#fcc9b5"),
        LegendClass("Isolated structures", "#cb7e69"),
        LegendClass("Industrial, commercial and public units", "#c66ca5"),
        LegendClass("Fast transit roads", "#f37924"),
        LegendClass("Other roads", "#fab586"),
        LegendClass("Railways", "#828587"),
        LegendClass("Port areas", "#e0c1dd"),
        LegendClass("Airports", "#e1cbd1"),
        LegendClass("Mineral extraction and dump sites", "#9a6c5b"),
        LegendClass("Construction sites", "#cea879"),
        LegendClass("Land without current use", "#ffff00"),
        LegendClass("Green urban areas", "#a8bd3d"),
        LegendClass("Sports and leisure facilities", "#d9e591"),
        LegendClass("Arable land", "#ffffa8"),
        LegendClass("Permanent crops", "#e68000"),
        LegendClass("Pastures", "#e6e64d"),
        LegendClass("Complex and mixed cultivation patterns", "#ffe6a6"),
        LegendClass("Orchards", "#f2a64d"),
        LegendClass("Forests", "#007149"),
        LegendClass("Herbaceous vegetation associations", "#ccf24d"),
        LegendClass("Open spaces with little or no vegetation", "#e6e6e6"),
        LegendClass("Wetlands", "#a6a6ff"),
        LegendClass("Water", "#0095cf"),
    ),
)
"""The 27 classes of Urban Atlas without those of no data (EEA Urban Atlas Mapping Guide v6.3), names shortened."""

FLOOD = Legend("flood", (LegendClass("Dry", "#d9d9d9"), LegendClass("Flooded", "#0050c8")))
"""Flooded and not flooded."""

FOOTPRINTS = Legend("footprints", (LegendClass("Background", "#d9d9d9"), LegendClass("Building", "#ff0000")))
"""Footprints of buildings, as in Inria's aerial images (Maggiori et al. 2017)."""

LEGENDS: dict[str, Legend] = {legend.name: legend for legend in (EUROSAT, HSL4, HSL8, URBAN_ATLAS, FLOOD, FOOTPRINTS)}
