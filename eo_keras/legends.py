"""Class legends: the names, codes and colours of what a map shows.

A legend's order is the order of the model's outputs. Colours are `#rrggbb`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from eo_keras.errors import LegendError


@dataclasses.dataclass(frozen=True)
class LegendClass:
    """One class: its name in the data set, and the colour it is drawn in."""

    name: str
    colour: str


@dataclasses.dataclass(frozen=True)
class Legend:
    """An ordered list of classes; a class's place is its label."""

    name: str
    classes: tuple[LegendClass, ...]

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(item.name for item in self.classes)

    @property
    def colours(self) -> tuple[str, ...]:
        """Colours in label order."""
        return tuple(item.colour for item in self.classes)

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
        # Alphabetical: the label order of TFDS and torchgeo. The colours follow CORINE's where it has the class.
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

LEGENDS: dict[str, Legend] = {legend.name: legend for legend in (EUROSAT,)}
