"""Shows what a records folder holds: its card, counts, statistics, and a contact sheet of samples per class.

Example: python -m launch.inspect --records_dir=records/rgb
"""

import pathlib

from absl import flags

from eo_keras import cards, files, reports
from eo_keras.errors import OptionError
from launch import common
from tfrecords_builder import inspection

FLAGS = flags.FLAGS

flags.DEFINE_string("records_dir", None, "Records folder made by launch.build.", required=True)
flags.DEFINE_string(
    "output",
    None,
    "PNG file to draw the contact sheet to. Default: inspect/<name of the records folder>.png, outside that folder.",
)
flags.DEFINE_string("split", "train", "Split to take the samples from: train, val or test.")
flags.DEFINE_integer("samples", 10, "Samples of each class on the contact sheet.", lower_bound=1, upper_bound=10)
flags.DEFINE_bool("checksums", False, "Whether to compare every shard's SHA-256 with the card, beside its length.")


def main() -> None:
    """Runs the command."""
    card = cards.read_data_card(FLAGS.records_dir)
    if FLAGS.split not in card.splits:
        raise OptionError(
            "--split", f"'{FLAGS.split}' is no split of these records", f"one of {', '.join(card.splits)}"
        )
    count = inspection.check_shards(card, FLAGS.records_dir, checksums=FLAGS.checksums)
    print(inspection.describe(card))
    print(f"\n{count} shards present, with the {'SHA-256' if FLAGS.checksums else 'lengths'} of the card")
    folder = pathlib.Path(FLAGS.records_dir).resolve()
    output = pathlib.Path(FLAGS.output) if FLAGS.output else pathlib.Path("inspect") / f"{folder.name}.png"
    if FLAGS.dry_run:
        print(f"dry run: would draw {FLAGS.samples} samples of each class of '{FLAGS.split}' to {output}")
        return
    images = inspection.sample_images(card, FLAGS.records_dir, FLAGS.split, FLAGS.samples)
    files.make_folder(output.parent)
    files.write_bytes(output, reports.contact_sheet_png(images, f"{card.dataset}, {FLAGS.split}"))
    print(f"contact sheet: {output}")


if __name__ == "__main__":
    common.run(main)
