"""Tables that say which class names of two legends mean the same, such as of a map and of its reference."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from eo_keras.errors import LegendError, OptionError, SourceError
from eo_keras.legends.catalogue import IGNORE
from eo_keras.legends.crosswalk import CODE_MAPS

LEFT_OUT = -1
"""Label of a name that is left out by the table."""

_SHOWN = 30


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """Other names of classes.

    Attributes:
        targets: name that stands for a name; an empty one leaves the class out.
        source: the table's file, for messages; empty without one.
    """

    targets: Mapping[str, str]
    source: str = ""

    def renamed(self, name: str) -> str:
        """Returns the name that stands for a name, which may be itself."""
        return self.targets.get(name, name)


NO_TABLE = ClassTable({})


def read_class_table(path: str | os.PathLike[str]) -> ClassTable:
    """Reads a CSV file with the header `source,target`, or returns the table of a named crosswalk of Urban Atlas.

    Args:
        path: the file; or one of the names in `crosswalk.CODE_MAPS`, whose codes become its classes.

    Raises:
        OptionError: if there is no such file or crosswalk.
        SourceError: if the file is not of that form, or a name has two targets.
    """
    name = os.fspath(path)
    if name in CODE_MAPS:
        crosswalk = CODE_MAPS[name]
        names = crosswalk.legend.class_names
        return ClassTable(
            {code: "" if label == IGNORE else names[label] for code, label in crosswalk.labels.items()}, name
        )
    if not os.path.isfile(path):
        raise OptionError("class_table", f"there is no file '{name}'", f"a CSV file, or one of {', '.join(CODE_MAPS)}")
    expected = "a CSV file in UTF-8 with the header source,target and one row for each name"
    targets: dict[str, str] = {}
    try:
        rows = csv.DictReader(io.StringIO(pathlib.Path(path).read_text(encoding="utf-8-sig"), newline=""), strict=True)
        if [(column or "").strip().lower() for column in rows.fieldnames or ()] != ["source", "target"]:
            raise ValueError(f"its header is {','.join(rows.fieldnames or ()) or 'missing'}")
        rows.fieldnames = ["source", "target"]
        for row in rows:
            found, target = (row["source"] or "").strip(), row["target"]
            if not found or target is None or None in row:
                raise ValueError(f"line {rows.line_num} has not two columns, or an empty source")
            if targets.setdefault(found, target.strip()) != target.strip():
                raise ValueError(f"'{found}' has two targets")
    except (OSError, ValueError, csv.Error) as error:
        raise SourceError(path, f"it cannot be read ({error})", expected, "fix the file") from None
    return ClassTable(targets, name)


@dataclasses.dataclass(frozen=True)
class Matching:
    """Common classes of a map and its reference.

    Attributes:
        class_names: the common names, in the order of the map's legend.
        of_map: int64 (classes of the map,), the common label of each of the map's labels, or `LEFT_OUT`.
        table: the table of other names.
    """

    class_names: tuple[str, ...]
    of_map: np.ndarray
    table: ClassTable

    def known(self, name: str) -> bool:
        """Returns whether a name of the reference has a common class, or is left out."""
        target = self.table.renamed(name)
        return not target or target in self.class_names

    def labels_of(self, names: Sequence[str] | np.ndarray, source: str) -> np.ndarray:
        """Returns the common labels of the reference's names.

        Args:
            names: (N,) names.
            source: where they come from, for the error.

        Returns:
            int64 (N,), with `LEFT_OUT` where the table says so.

        Raises:
            LegendError: if names have no common class; all are listed.
        """
        kinds, places = np.unique(np.asarray(names, np.str_), return_inverse=True)
        self.check(kinds.tolist(), source)
        targets = [self.table.renamed(name) for name in kinds.tolist()]
        labels = [self.class_names.index(target) if target else LEFT_OUT for target in targets]
        return np.array(labels, np.int64)[places]

    def check(self, names: Sequence[str], source: str) -> None:
        """Checks that names of the reference have common classes.

        Raises:
            LegendError: if some have none; all are listed.
        """
        unknown = [name for name in names if not self.known(name)]
        if not unknown:
            return
        shown = ", ".join(
            f"'{name}'" if self.table.renamed(name) == name else f"'{name}' ('{self.table.renamed(name)}' by the table)"
            for name in unknown[:_SHOWN]
        )
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise LegendError(
            source,
            f"the map has no class {shown}{more}",
            f"names of the map's classes: {', '.join(self.class_names)}",
            "say what each name means by `class_table=FILE.csv` with the columns source,target; an empty target leaves "
            "a class out",
        )


def match(map_classes: Sequence[str], table: ClassTable = NO_TABLE, *, merge: bool = True) -> Matching:
    """Matches a map's classes with those of a reference, by equal names after the table has renamed both.

    Args:
        map_classes: names of the map's classes, by label.
        table: other names of the map's and the reference's classes.
        merge: whether the table also applies to the map's own names, so that several of its classes can be one.
    """
    targets = [table.renamed(name) if merge else name for name in map_classes]
    names = tuple(dict.fromkeys(target for target in targets if target))
    labels = [names.index(target) if target else LEFT_OUT for target in targets]
    return Matching(names, np.array(labels, np.int64), table)
