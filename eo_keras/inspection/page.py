"""HTML page of `launch.inspect` about a records folder, and the numbers of its leakage report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

import eo_keras
from eo_keras.inspection import leakage, scan_records
from eo_keras.plots import classification, dataset, html
from eo_keras.records import data_card as cards

MOST_COPIES_SHOWN = 24
"""Largest number of duplicates listed on a page; the JSON file lists up to `leakage.MOST_LISTED`."""

MOST_COPIES_DRAWN = 8

NO_PLACES = (
    "The locations of the patches are not known: these records hold no coordinates. Neighbors are therefore not "
    "counted and no map is drawn. Say `coordinates=FILE` with a CSV file (header patch,latitude,longitude, in degrees)."
)


@dataclasses.dataclass(frozen=True)
class Subject:
    """An inspected records folder.

    Attributes:
        name: its name on the page.
        card: its card.
        survey: its keys, fingerprints, histograms and samples.
        places: locations of the patches, or None if not known.
        report: leakage between its splits.
        copies: images (height, width, 3) uint8 by key, of the duplicates that the page draws.
    """

    name: str
    card: cards.DataCard
    survey: scan_records.Survey
    places: scan_records.Places | None
    report: leakage.LeakReport
    copies: dict[str, np.ndarray]


def drawn_copies(report: leakage.LeakReport) -> tuple[leakage.Duplicate, ...]:
    """Returns the duplicates whose images a page draws."""
    return report.copies[:MOST_COPIES_DRAWN]


def make_page(subject: Subject, against: Subject | None = None, *, verified: bool = False) -> html.Page:
    """Makes the page of a records folder.

    Args:
        subject: the folder that the page is about.
        against: another folder, whose leakage and map are shown beside the first's.
        verified: whether the SHA-256 of the shards was compared.
    """
    card = subject.card
    both = [subject] if against is None else [subject, against]
    counts = {name: split.classes for name, split in card.splits.items()}
    total = sum(split.examples for split in card.splits.values())
    sections = [
        html.Section("Leakage between the splits", [*_leak_blocks(both), *_copy_blocks(both)]),
        html.Section("Locations of the patches", [block for one in both for block in _map_blocks(one)]),
        html.Section("Class balance", _balance_blocks(card, counts)),
        html.Section("Bands", _band_blocks(subject)),
        html.Section("Samples", _sample_blocks(subject)),
        html.Section("Card", _card_blocks(subject, verified)),
    ]
    return html.Page(
        title=f"{card.dataset}: {subject.name}",
        subtitle=f"{total:,} {card.targets.examples} of {len(card.legend)} classes, {len(card.bands)} bands, "
        f"Sentinel-2 {card.level}; " + ", ".join(f"{name} {split.examples:,}" for name, split in card.splits.items()),
        sections=sections,
        footer=f"{card.attribution}. Fingerprint of the records: {card.fingerprint}. "
        f"Made by launch.inspect of EO-Keras {eo_keras.__version__}.",
    )


def numbers(subject: Subject, against: Subject | None = None) -> dict[str, Any]:
    """Returns the leakage report as dictionaries, lists and numbers for JSON."""

    def one(inspected: Subject) -> dict[str, Any]:
        return {
            "name": inspected.name,
            "dataset": inspected.card.dataset,
            "fingerprint": inspected.card.fingerprint,
            "split_method": dict(inspected.card.split_method),
            "places": None if inspected.places is None else inspected.places.source,
            "leaks": cards.to_json(inspected.report),
        }

    return one(subject) | ({} if against is None else {"against": one(against)})


def summary(report: leakage.LeakReport) -> list[str]:
    """Returns the leakage report as lines of text, one for each pair of splits."""
    lines = []
    for pair in report.pairs:
        counts = [f"{pair.exact:,} exact duplicates", f"{pair.near:,} near-duplicates"]
        if pair.neighbours is not None:
            limit = f"{report.options.neighbour_km:g}"
            counts.append(f"{_share(pair.neighbours[limit], pair.patches)} with a neighbor within {limit} km")
        lines.append(f"{pair.part} from {pair.other}: of {pair.patches:,} patches {', '.join(counts)}")
    return lines


def _share(count: int, total: int) -> str:
    if not count:
        return "0"
    per_cent = 100 * count / max(1, total)
    return f"{count:,} ({per_cent:.1f} %)" if per_cent >= 1 else f"{count:,} ({per_cent:.2g} %)"


def _distance(km: float | None) -> str:
    if km is None:
        return "-"
    return f"{1000 * km:.0f} m" if km < 1 else f"{km:,.1f} km"


def _leak_blocks(both: Sequence[Subject]) -> list[html.Text | html.Table | html.Picture]:
    options = both[0].report.options
    blocks = [
        html.Text(
            "A test score is biased by patches that the network knows from training. Counted are patches with a "
            "duplicate in another split, and patches with overlapping or nearby ground in it."
        )
    ]
    names = list(dict.fromkeys((pair.part, pair.other) for one in both for pair in one.report.pairs))
    for split, other in names:
        pairs = [
            next((pair for pair in one.report.pairs if (pair.part, pair.other) == (split, other)), None) for one in both
        ]
        rows = [[f"patches of {split}", *("-" if pair is None else f"{pair.patches:,}" for pair in pairs)]]
        measures = [("the same pixels", lambda pair: pair.exact), ("a near-duplicate", lambda pair: pair.near)]
        if any(pair is not None and pair.neighbours is not None for pair in pairs):
            measures.append(("overlapping ground", lambda pair: pair.overlapping))
            # Every report has the same distances, for the options are the same.
            limits = next(pair.neighbours for pair in pairs if pair is not None and pair.neighbours is not None)
            for km in limits:
                title = "a neighbor that touches" if km == "0" else f"a neighbor within {km} km"
                measures.append((title, lambda pair, km=km: None if pair.neighbours is None else pair.neighbours[km]))
        for title, measure in measures:
            values = [None if pair is None else measure(pair) for pair in pairs]
            cells = ["-" if v is None else _share(v, pair.patches) for v, pair in zip(values, pairs, strict=True)]
            rows.append([title, *cells])
        medians = [None if pair is None else pair.median_km for pair in pairs]
        if any(median is not None for median in medians):
            rows.append(["median distance", *map(_distance, medians)])
        caption = f"Patches of {split} with … in {other}"
        blocks.append(html.Table([caption, *(one.name for one in both)], rows, text_columns=1))
    if not names:
        blocks.append(html.Text("There is one split only, and no leakage.", "soft"))
    for one in both:
        if one.places is None:
            blocks.append(html.Text(NO_PLACES if len(both) == 1 else f"{one.name}: {NO_PLACES}", "warn"))
    even = "; ".join(
        f"{'' if len(both) == 1 else one.name + ': '}"
        + ", ".join(f"{count:,} of {split}" for split, count in one.report.too_even.items())
        for one in both
    )
    blocks.append(
        html.Text(
            f"A near-duplicate is the same image compressed again, brightened, mirrored or turned: its 64-bit "
            f"perceptual hash differs in at most {options.near_copy_bits} bits, and its details correlate with at "
            f"least {options.least_correlation:g}. Patches too even to be compared: {even}. Distances are from edge to "
            "edge on the ground; touching has a tolerance of two pixels, and overlapping patches share more than a "
            "strip of one pixel.",
            "soft",
        )
    )
    return blocks


def _copy_blocks(both: Sequence[Subject]) -> list[html.Text | html.Table | html.Picture]:
    blocks: list[html.Text | html.Table | html.Picture] = []
    for one in both:
        listed = one.report.copies[:MOST_COPIES_SHOWN]
        if not listed:
            continue
        rows = [
            [
                copy.kind,
                f"{copy.key} ({copy.part})",
                f"{copy.other_key} ({copy.other_part})",
                copy.turn,
                f"{copy.bits}",
                f"{copy.correlation:.2f}",
            ]
            for copy in listed
        ]
        caption = f"{one.name}: {len(listed)} of {one.report.copies_found:,} duplicates"
        columns = ["kind", "patch", "duplicate", "symmetry", "bits", "correlation"]
        blocks.append(html.Table(columns, rows, caption, text_columns=4))
        drawn = [copy for copy in drawn_copies(one.report) if {copy.key, copy.other_key} <= set(one.copies)]
        if drawn:
            images = {
                f"{copy.key} | {copy.other_key}": [one.copies[copy.key], one.copies[copy.other_key]] for copy in drawn
            }
            names = "; ".join(images)
            png = classification.contact_sheet_png(images, "Duplicates")
            caption = f"{one.name}: patches at the left, their duplicates at the right"
            blocks.append(html.Picture(png, f"Patches and their duplicates side by side: {names}", caption))
    return blocks


def _map_blocks(one: Subject) -> list[html.Text | html.Picture]:
    if one.places is None:
        return [html.Text(f"{one.name}: {NO_PLACES}", "warn")]
    splits = np.array(one.survey.splits)
    degrees = {split: one.places.degrees[splits == split] for split in one.card.splits}
    (west, south), (east, north) = one.places.degrees.min(axis=0), one.places.degrees.max(axis=0)
    png = dataset.map_png(degrees, one.name)
    alt = (
        f"Map of {len(splits):,} patches between {west:.1f} and {east:.1f} degrees of longitude and {south:.1f} and "
        f"{north:.1f} degrees of latitude, colored by split"
    )
    return [html.Picture(png, alt, f"Locations from {one.places.source}. Test points are drawn over training points.")]


def _balance_blocks(card: cards.DataCard, counts) -> list[html.Text | html.Table | html.Picture]:
    names = card.legend.class_names
    counted = card.targets.counted.capitalize()
    png = dataset.class_balance_png(counts, names, f"{counted} by class and split", counted)
    counts_of = {name: [split.classes.get(name, 0) for split in card.splits.values()] for name in names}
    rows = [[name, *(f"{count:,}" if count else "-" for count in numbers)] for name, numbers in counts_of.items()]
    rows.append(["examples", *(f"{split.examples:,}" for split in card.splits.values())])
    alt = f"Bar chart of the {counted.lower()} by class and split; its numbers are in the table below"
    warnings = [html.Text(f"{line[0].upper()}{line[1:]}.", "warn") for line in card.missing_classes()]
    return [html.Picture(png, alt), html.Table(["class", *card.splits], rows), *warnings]


def _band_blocks(one: Subject) -> list[html.Text | html.Table | html.Picture]:
    card = one.card
    png = dataset.band_histograms_png(
        one.survey.histograms, card.bands, card.reflectance, card.nodata, "Numbers by band and split"
    )
    columns = ["mean", "std", "min", "2 %", "median", "98 %", "max", "no data"]
    rows = []
    for name, band in scan_records.band_statistics(card):
        ordered = scan_records.order_statistics(band)
        rows.append(
            [
                name,
                f"{band.mean:,.2f}",
                f"{band.std:,.2f}",
                *(number if isinstance(number, str) else f"{number:,}" for number in ordered),
                f"{100 * band.nodata_share:.3g} %",
            ]
        )
    of = f" of {card.modality}" if card.others else ""
    alt = f"Histograms of the bands {', '.join(card.bands)}{of}, one line a split"
    what = "each stored number (axis below) or reflectance (above)" if card.reflectance else "each stored number"
    caption = (
        f"Shares of the pixels with {what}, from the 0.1th to the 99.9th percentile; dashed lines mark the 2nd and "
        "the 98th."
    )
    return [
        html.Picture(png, alt, caption),
        html.Table(["band", *columns], rows, "Statistics of the training split, in stored numbers"),
    ]


def _sample_blocks(one: Subject) -> list[html.Picture]:
    blocks = []
    for split, images in one.survey.samples.items():
        png = classification.contact_sheet_png(images, f"{one.card.dataset}, {split}")
        most = max(map(len, images.values()), default=0)
        kind = one.card.targets.examples
        alt = f"Up to {most} {kind} of each class of the split '{split}': {', '.join(images)}"
        caption = f"Split '{split}': the first {kind} of every class"
        if one.card.targets.per_pixel:
            caption += ", by the class of most pixels; beside each its mask, black where no class is known or seen"
        blocks.append(html.Picture(png, alt, caption))
    return blocks


def _card_blocks(one: Subject, verified: bool) -> list[html.Text | html.Table]:
    shards = sum(len(split.shards) for split in one.card.splits.values())
    total = sum(split.examples for split in one.card.splits.values())
    checked = f"{total:,} records in {shards} shards were read, their checksums and counts compared with the card"
    state = f"{checked}; {'the SHA-256 of every shard too' if verified else 'not the SHA-256 (`verify`)'}."
    sources = [[source.name, f"{source.bytes:,}", source.sha256] for source in one.card.sources]
    rows = [[name, value] for name, value in scan_records.facts(one.card) if name != "split"]
    return [
        html.Text(state, "soft"),
        html.Table([], rows, text_columns=2),
        html.Table(
            ["split", ""], [[key, f"{value}"] for key, value in one.card.split_method.items()], "", text_columns=2
        ),
        html.Table(["source", "bytes", "SHA-256"], sources, text_columns=1),
    ]
