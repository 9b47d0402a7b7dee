"""Accuracy of a class map and areas of its classes, from an interpreted sample that `sampling` has drawn."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from eo_keras.core import files
from eo_keras.core.number_format import ABSENT, percent
from eo_keras.core.options import check, documented, option
from eo_keras.core.output_folders import OutputFolder
from eo_keras.errors import EOKerasError, OptionError
from eo_keras.geo.class_map import open_class_map
from eo_keras.geo.points import Points, read_points
from eo_keras.legends.class_table import NO_TABLE, match, read_class_table
from eo_keras.mapping.reference import CACHE_MB, labels_at, pixels_of
from eo_keras.mapping.sampling import MAP_CLASS, REFERENCE_CLASS, STRATA_KEY, Progress, Strata, count_strata
from eo_keras.metrics.area_estimation import AreaEstimation, StratifiedEstimate, estimate_areas
from eo_keras.plots.html import Table

FILES = ("assessment.json", "assessment.txt", "areas.csv", "error_matrix.csv")
"""Names of the files of an assessment."""

_FEW = 20
"""Number of places of a class below which its interval is rough."""

_FEW_MISSED = 5
"""Number of a class's places that the map has as another one, below which its standard error is too small.

On a map of Malta with true areas known, in 100 samples of 600 places, the intervals of 1.96 standard errors then held
the true area in 68 % of the cases, and else in 90 to 100 %; the score intervals in 89 to 96 % of all.
"""


@documented
@dataclasses.dataclass(frozen=True)
class InterpretationOptions:
    """Interpreted sample of a map."""

    interpreted: str | None = option(
        None,
        path=True,
        help="The sample with the reference's classes filled in: GeoPackage, GeoJSON, CSV and others.",
    )
    class_field: str = option(REFERENCE_CLASS, help="Field with the interpreted class; empty where there is none yet.")
    layer: str | None = option(None, help="Layer of the sample, where several have that field.")
    points_crs: str | None = option(
        None, help="Coordinate reference system of a CSV table with the columns x and y, such as EPSG:32632."
    )
    class_table: str | None = option(
        None,
        path=True,
        help="CSV file with the columns source,target: other names that the interpreter used for the map's classes; an "
        "empty target leaves a place out. Or hsl4, hsl8, eurosat10 or full, for codes of Urban Atlas.",
    )

    def __post_init__(self):
        """Checks the values."""
        check(self)
        if self.interpreted is None:
            raise OptionError("interpreted", "it is not given", "the interpreted sample")


@dataclasses.dataclass(frozen=True)
class Assessment:
    """Accuracy of a map, and areas of its classes in hectares.

    Attributes:
        map: the map's path.
        options: the interpreted sample.
        strata: the map's classes, with pixels and areas.
        estimation: accuracies and areas.
        counts: numbers of places that were given, that count (`interpreted`), and that do not, by reason.
        warnings: what the reader must know.
    """

    map: str
    options: InterpretationOptions
    strata: Strata
    estimation: AreaEstimation
    counts: Mapping[str, int]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as a dictionary of JSON values; areas are in hectares."""
        return {
            "map": os.path.basename(self.map),
            "interpreted": os.path.basename(self.options.interpreted),
            "unit_of_areas": "ha",
            "counts": dict(self.counts),
            "warnings": list(self.warnings),
            "pixels": self.strata.pixels.tolist(),
            **self.estimation.to_json(),
        }

    def tables(self) -> tuple[Table, Table]:
        """Returns the error matrix in proportions of the area, and the classes' accuracies and areas."""
        found, total = self.estimation, self.strata.hectares.sum()
        names = found.class_names
        matrix = Table(
            ("map \\ reference", *names, "places", "share of the map"),
            [
                (
                    name,
                    *(f"{value:.4f}" for value in found.proportions[k]),
                    f"{found.counts[k].sum():,}",
                    percent(found.mapped[k] / total),
                )
                for k, name in enumerate(names)
            ],
            "Error matrix in proportions of the whole area",
        )
        classes = Table(
            (
                *("class", "user's accuracy", "producer's accuracy", "mapped, ha"),
                *("area, ha", "95 % interval, ha", "score interval, ha"),
            ),
            [
                (
                    name,
                    _share_text(found.users[k]),
                    _share_text(found.producers[k]),
                    f"{found.mapped[k]:,.2f}",
                    f"{found.areas[k].value:,.2f}",
                    f"{found.areas[k].low:,.2f} to {found.areas[k].high:,.2f}",
                    "{:,.2f} to {:,.2f}".format(*found.areas[k].score_interval),
                )
                for k, name in enumerate(names)
            ],
            "Accuracies and areas by class",
        )
        return matrix, classes

    def lines(self) -> list[str]:
        """Returns the assessment as lines of text."""
        matrix, classes = self.tables()
        counts, overall = self.counts, self.estimation.overall
        reasons = [
            f"{count:,} {name.replace('_', ' ')}"
            for name, count in counts.items()
            if count and name not in ("points", "interpreted")
        ]
        return [
            f"places: {counts['interpreted']:,} of {counts['points']:,}"
            + (f" ({', '.join(reasons)})" if reasons else ""),
            "",
            f"{matrix.caption}:",
            *matrix.lines(),
            "",
            f"{classes.caption}, in parentheses 95 % intervals:",
            *classes.lines(),
            "",
            f"overall accuracy {_share_text(overall)}, standard error {percent(overall.standard_error)}",
            *(f"warning: {warning}" for warning in self.warnings),
        ]

    def areas_csv(self) -> str:
        """Returns accuracies and areas as a CSV table, a row a class."""
        found = self.estimation
        columns = [
            *("class", "places", "pixels", "mapped_ha"),
            *(
                f"{name}{part}"
                for name in ("area_ha", "users_accuracy", "producers_accuracy")
                for part in ("", "_low", "_high", "_standard_error", "_score_low", "_score_high")
            ),
        ]
        rows = [
            [
                *(name, int(found.counts[k].sum()), int(self.strata.pixels[k]), f"{found.mapped[k]:.4f}"),
                *_cells(found.areas[k], 4),
                *_cells(found.users[k], 6),
                *_cells(found.producers[k], 6),
            ]
            for k, name in enumerate(found.class_names)
        ]
        return _csv(columns, rows)

    def matrix_csv(self) -> str:
        """Returns the error matrix as a CSV table: rows classes of the map, columns of the reference."""
        found = self.estimation
        columns = ["map_class", *(f"places_{name}" for name in found.class_names)]
        columns += [f"share_{name}" for name in found.class_names]
        rows = [
            [name, *found.counts[k].tolist(), *(f"{value:.8f}" for value in found.proportions[k])]
            for k, name in enumerate(found.class_names)
        ]
        return _csv(columns, rows)


def _share_text(value: StratifiedEstimate | None) -> str:
    return ABSENT if value is None else f"{percent(value.value)} ({percent(value.low)} to {percent(value.high)})"


def _cells(value: StratifiedEstimate | None, digits: int) -> list[str]:
    if value is None:
        return [""] * 6
    numbers = (value.value, value.low, value.high, value.standard_error, *value.score_interval)
    return [f"{number:.{digits}f}" for number in numbers]


def _csv(columns: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def assess_map(
    map_path: str | os.PathLike[str], options: InterpretationOptions, progress: Progress | None = None
) -> Assessment:
    """Estimates a map's accuracies and the areas of its classes from an interpreted sample.

    The map's class of each place is read from the map, not from the sample. See
    `eo_keras.metrics.area_estimation.estimate_areas`.

    Args:
        map_path: the map that the sample was drawn from.
        options: the interpreted sample.
        progress: called with (stage, done, total) rows.

    Raises:
        SourceError: if map or sample cannot be read.
        LegendError: if a class of the interpreter is none of the map's.
        EOKerasError: if the sample was drawn from another map, or a class of the map has too few places.
    """
    import rasterio

    table = NO_TABLE if options.class_table is None else read_class_table(options.class_table)
    points = read_points(
        options.interpreted, options.class_field, layer=options.layer, crs=options.points_crs, others=(MAP_CLASS,)
    )
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20), open_class_map(map_path) as class_map:
        names = class_map.legend.class_names
        classed = points.values != ""
        truth = np.full(len(points), -1)
        # The map's classes are the strata, which no table may merge.
        truth[classed] = match(names, table, merge=False).labels_of(points.values[classed], points.source)
        rows, columns, inside = pixels_of(class_map.grid, points.in_crs(class_map.grid.crs))
        found = np.full(len(points), class_map.nodata, np.uint8)
        found[inside] = labels_at(class_map, rows[inside], columns[inside])
        valid = found != class_map.nodata
        _check_classes(points, names, found, valid)
        strata = count_strata(class_map, progress)
    if points.metadata.get(STRATA_KEY, strata.checksum) != strata.checksum:
        raise _other_map(points.source, "its strata are not those of this map")
    used = classed & valid & (truth >= 0)
    counts = {
        "points": len(points),
        "interpreted": int(used.sum()),
        "not_interpreted": int((~classed).sum()),
        "outside_map": int((classed & ~inside).sum()),
        "on_no_data": int((classed & inside & ~valid).sum()),
        "left_out": int((classed & valid & (truth < 0)).sum()),
    }
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, (found[used], truth[used]), 1)
    complete = matrix.sum(axis=1) == strata.pixels
    estimation = estimate_areas(matrix, strata.hectares, names, complete=complete)
    return Assessment(
        os.fspath(map_path), options, strata, estimation, counts, _warnings(estimation, counts, names, complete)
    )


def _check_classes(points: Points, names: tuple[str, ...], found: np.ndarray, valid: np.ndarray) -> None:
    said = points.others.get(MAP_CLASS)
    if said is None:
        return
    differs = valid & (said != "") & (said != np.array([*names, ""])[np.where(valid, found, len(names))])
    if (places := np.flatnonzero(differs)).size:
        first = places[0]
        raise _other_map(
            points.source,
            f"{places.size:,} of {len(points):,} places have another class on the map than {MAP_CLASS} says, first "
            f"'{names[found[first]]}' for '{said[first]}'",
        )


def _other_map(source: str, found: str) -> EOKerasError:
    return EOKerasError(
        source, found, "the sample of this map", "assess the map that it was drawn from, or draw a new sample"
    )


def _warnings(
    estimation: AreaEstimation, counts: Mapping[str, int], names: tuple[str, ...], complete: np.ndarray
) -> tuple[str, ...]:
    found = []
    if missing := counts["not_interpreted"] + counts["left_out"]:
        found.append(
            f"{missing:,} of {counts['points']:,} places are not used; if what they have in common is not chance (such "
            "as clouds), the estimates are biased"
        )
    drawn = estimation.counts.sum(axis=1)
    if few := [f"{name} ({drawn[k]})" for k, name in enumerate(names) if 0 < drawn[k] < _FEW and not complete[k]]:
        found.append(f"few places, so that intervals are rough: {', '.join(few)}")
    missed = estimation.counts.sum(axis=0) - np.diag(estimation.counts)
    # What a class lacks can only be missed where others are sampled in part.
    there = (estimation.counts.sum(axis=0) > 0) & bool((~complete & (drawn > 0)).any())
    if rare := [f"{name} ({missed[k]})" for k, name in enumerate(names) if there[k] and missed[k] < _FEW_MISSED]:
        found.append(
            f"the sample shows few places of these classes that the map has as another one: {', '.join(rare)}; the "
            "standard errors of their areas and producer's accuracies are too small, so use the score intervals"
        )
    return tuple(found)


def output_folder(folder: str | os.PathLike[str]) -> OutputFolder:
    """Returns the `OutputFolder` of an assessment."""
    return OutputFolder(folder, "assessment")


def write_assessment(assessment: Assessment, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[str]:
    """Writes an assessment as JSON, text and CSV tables into a folder; an earlier one in it is replaced.

    Args:
        assessment: the assessment.
        folder: the folder, made if missing.
        overwrite: whether to write beside foreign files in the folder.

    Returns:
        Warnings for the user about foreign files.

    Raises:
        StorageError: if the folder belongs to something else, or cannot be written.
    """
    lines = [f"assessment of {os.path.basename(assessment.map)}", "", *assessment.lines(), ""]
    contents = (
        files.json_bytes(assessment.to_json()),
        "\n".join(lines).encode("utf-8"),
        assessment.areas_csv().encode("utf-8"),
        assessment.matrix_csv().encode("utf-8"),
    )
    output = output_folder(folder)
    with output.held(overwrite=overwrite, writes=FILES):
        output.write(dict(zip(FILES, contents, strict=True)))
        if overwrite:
            output.tell_foreign()
    return output.take_warnings()
