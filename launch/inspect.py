"""Reports the content of a records folder and the leakage between its splits, as an HTML page.

The page holds the card, the leakage report (copies and neighbors across splits), a map, class balance, band
histograms and samples. The numbers of the leakage report are written beside it as JSON. docs/guides/inspect.md explains
them.

Example: python -m launch.inspect --records_dir=records/rgb --coordinates=data/coordinates.csv
"""

import pathlib

from absl import flags

from eo_keras.core import files, output_files
from eo_keras.errors import OptionError
from eo_keras.inspection import leakage, scan_records
from eo_keras.inspection import page as inspection_page
from eo_keras.plots import html
from eo_keras.records import data_card as cards
from launch import app, path_flags

FLAGS = flags.FLAGS

_DEFAULTS = leakage.LeakOptions()


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags, the common ones left out."""
    where = {"flag_values": flag_values}
    path_flags.define_path(
        "records_dir",
        None,
        "Records folder made by launch.build: a path or a URL.",
        required=True,
        urls=True,
        **where,
    )
    path_flags.define_path(
        "output",
        None,
        "HTML file to write the page to; the numbers of the leakage report go beside it, ending in .json. Default: "
        "inspect/<name of the records folder>.html, outside that folder.",
        **where,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Whether to replace a page or numbers that this command did not write, or that were changed.",
        **where,
    )
    flags.DEFINE_integer(
        "samples", 10, "Samples of each class and split on the page.", lower_bound=1, upper_bound=10, **where
    )
    flags.DEFINE_bool(
        "verify",
        False,
        "Whether to compare every shard's SHA-256 with the card, beside all that is checked on reading; with "
        "--dry_run, whether to read and check every record. The first damage is named by shard and record.",
        **where,
    )
    path_flags.define_path(
        "coordinates",
        None,
        "CSV file of the patches' centers (header patch,latitude,longitude, in degrees), for records without a CRS.",
        **where,
    )
    flags.DEFINE_float(
        "neighbour_km", _DEFAULTS.neighbour_km, "Distance of neighbors, edge to edge in kilometers.", **where
    )
    flags.DEFINE_integer(
        "near_copy_bits",
        _DEFAULTS.near_copy_bits,
        "Bits of 64 in which the perceptual hashes of near-duplicates differ at most; unrelated images differ in 32.",
        lower_bound=0,
        upper_bound=24,
        **where,
    )
    path_flags.define_path(
        "against",
        None,
        "Another records folder, whose leaks and map are shown beside, such as that of a spatial split.",
        urls=True,
        **where,
    )


def main() -> None:
    """Runs the command."""
    output = _output()
    written = (output, output.with_suffix(".json"))
    output_files.check_files(written, overwrite=FLAGS.overwrite, error=OptionError)
    if not 0 <= FLAGS.neighbour_km < float("inf"):
        raise OptionError("--neighbour_km", f"{FLAGS.neighbour_km:g}", "kilometers, at least 0")
    card = cards.read_data_card(FLAGS.records_dir)
    other = cards.read_data_card(FLAGS.against) if FLAGS.against is not None else None
    shards = scan_records.check_shards(card, FLAGS.records_dir)
    app.say(scan_records.describe(card))
    for warning in card.missing_classes():
        app.say(f"warning: {warning}")
    with app.ProgressBars(unit="records") as bars:
        if FLAGS.dry_run:
            if FLAGS.verify:
                scan_records.verify(card, FLAGS.records_dir, progress=bars)
            seen = "records and SHA-256" if FLAGS.verify else "lengths"
            print(f"\n{shards} shards present, with the {seen} of the card")
            print(f"dry run: would write {output} and {output.with_suffix('.json')}")
            return
        subjects = [_inspect(_name(FLAGS.records_dir), card, FLAGS.records_dir, bars)]
        if other is not None:
            # Two folders of one name are distinguished by their paths.
            name = _name(FLAGS.against)
            name = FLAGS.against if name == subjects[0].name else name
            subjects.append(_inspect(name, other, FLAGS.against, bars))
    print(f"\n{shards} shards whole, with the records{' and SHA-256' if FLAGS.verify else ''} of the card")
    for subject in subjects:
        print(f"\n{subject.name}")
        for line in inspection_page.summary(subject.report):
            app.say(f"  {line}")
        if subject.places is None:
            print("  neighbors: not counted, for the records hold no coordinates; give --coordinates=FILE")
    page = inspection_page.make_page(*subjects, verified=FLAGS.verify)
    contents = {
        output: app.with_flags(html.render(page)).encode("utf-8"),
        output.with_suffix(".json"): files.json_bytes(inspection_page.numbers(*subjects)),
    }
    output_files.write_files(contents, overwrite=FLAGS.overwrite, error=OptionError)
    print(f"\npage: {output}\nnumbers: {output.with_suffix('.json')}")


def _output() -> pathlib.Path:
    if FLAGS.output is None:
        return pathlib.Path("inspect") / f"{_name(FLAGS.records_dir)}.html"
    output = pathlib.Path(FLAGS.output)
    if output.suffix not in (".html", ".htm"):
        raise OptionError("--output", f"'{FLAGS.output}' does not end in .html", "the name of an HTML file")
    return output


def _name(folder: str) -> str:
    local = files.local(folder)
    return local.resolve().name if local is not None else folder.rstrip("/").rpartition("/")[2]


def _inspect(name: str, card: cards.DataCard, folder: str, bars: app.ProgressBars) -> inspection_page.Subject:
    survey = scan_records.survey(card, folder, samples=FLAGS.samples, checksums=FLAGS.verify, progress=bars)
    places = scan_records.locate(card, survey, FLAGS.coordinates)
    options = leakage.LeakOptions(near_copy_bits=FLAGS.near_copy_bits, neighbour_km=FLAGS.neighbour_km)
    report = scan_records.find_leaks(card, survey, places, options)
    keys = {key for copy in inspection_page.drawn_copies(report) for key in (copy.key, copy.other_key)}
    copies = scan_records.pictures(card, folder, keys)
    return inspection_page.Subject(name, card, survey, places, report, copies)


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
