"""The evaluation of a map by launch.evaluate; no command."""

import pathlib

from absl import flags

from eo_keras.geo.class_map import open_class_map
from eo_keras.mapping import reference, reference_report
from launch import app, options


def main(flag_values: flags.FlagValues) -> None:
    """Scores a map against its reference, and writes and prints the result."""
    chosen = options.read(reference.ReferenceOptions, flag_values)
    name = f"{pathlib.Path(flag_values.map).stem}-{pathlib.Path(chosen.reference).stem}"
    output_dir = pathlib.Path(flag_values.output_dir or pathlib.Path("evaluation") / name)
    output = reference_report.output_folder(output_dir)
    output.check(overwrite=flag_values.overwrite, writes=reference_report.FILES)
    with open_class_map(flag_values.map) as class_map:
        grid, classes = class_map.grid, class_map.legend.class_names
    print(f"map:       {flag_values.map}, {grid.height:,} x {grid.width:,} pixels of {grid.pixel_size:g} in {grid.crs}")
    print(f"classes:   {', '.join(classes)}")
    field = f", field {chosen.class_field}" if chosen.class_field else ""
    print(f"reference: {chosen.reference} ({chosen.kind}{field})")
    if flag_values.dry_run:
        print(f"dry run: would write {', '.join(reference_report.FILES)} to {output_dir}")
        return
    with app.ProgressBars(unit="rows") as bars:
        found = reference.evaluate_map(flag_values.map, chosen, bars)
    table = reference_report.class_table(found)
    print("", *table.lines(), "in parentheses: 95 % intervals", "", sep="\n")
    print(reference_report.overall_line(found))
    app.say(reference_report.intervals_text(found))
    for warning in reference_report.write_map_evaluation(found, output_dir, overwrite=flag_values.overwrite):
        app.say(f"warning: {warning}")
    print(f"{output_dir}: {', '.join(reference_report.FILES)}")
