r"""Scores a run on a split: accuracy with its interval, scores by class, calibration, figures.

Examples:
  python -m launch.evaluate --run_dir=runs/a --split=test
  python -m launch.evaluate --run_dir=runs/a --records_dir=records/other --checkpoint=last
"""

import pathlib

from absl import flags

from eo_keras import runs
from launch import common

FLAGS = flags.FLAGS

flags.DEFINE_string("run_dir", None, "Run folder made by launch.train.", required=True)
flags.DEFINE_string("records_dir", None, "Records folder. Default: the one that the run was trained on.")
flags.DEFINE_string("split", "test", "Split to score: train, val or test.")
flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which model: that of the kept epoch, or of the last one.")
flags.DEFINE_integer("batch_size", 256, "Examples asked about at a time; does not change the scores.", lower_bound=1)
flags.DEFINE_string(
    "output_dir",
    None,
    "Folder for scores and figures. Default: evaluation/<split> in the run folder, with the checkpoint's name behind "
    "it if that is last, and the data set's before it if other records are given.",
)


def _output_dir(run, records) -> pathlib.Path:
    if FLAGS.output_dir:
        return pathlib.Path(FLAGS.output_dir)
    name = FLAGS.split if FLAGS.checkpoint == "best" else f"{FLAGS.split}-{FLAGS.checkpoint}"
    if records.card.fingerprint != run.card.data_fingerprint:
        name = f"{records.card.dataset}-{records.card.fingerprint[:8]}-{name}"
    return run.folder / runs.EVALUATION_DIR / name


def main() -> None:
    """Runs the command."""
    common.import_tensorflow_quietly()
    from eo_keras import evaluation, pipelines

    model_name = runs.MODEL_NAME if FLAGS.checkpoint == "best" else runs.LAST_MODEL_NAME
    run = runs.open_run(FLAGS.run_dir, model_name)
    records = pipelines.Records(FLAGS.records_dir or run.card.flags["records_dir"])
    output_dir, chosen = _output_dir(run, records), run.card.selection
    evaluation.check_records(records.card, run.card, records.folder)
    examples = records.split(FLAGS.split).examples
    print(f"model:    {run.card.model} on {','.join(run.card.bands)}, {run.card.parameters:,} weights")
    if FLAGS.checkpoint == "last":
        print("chosen:   the last epoch, on request")
    elif chosen["metric"]:
        print(
            f"chosen:   epoch {chosen['epoch']}, by {chosen['metric']} ({chosen['value']:.2%}) on {chosen['split']}; "
            "never by the test split"
        )
    else:
        print(f"chosen:   epoch {chosen['epoch']}, the last one: the run had no validation examples")
    print(f"examples: {examples:,} of the split {FLAGS.split} of {records.folder}")
    if FLAGS.dry_run:
        print(f"dry run: would write scores and figures to {output_dir}")
        return
    with common.ProgressBars(unit="batches") as progress:
        result = evaluation.evaluate(run, records, FLAGS.split, batch_size=FLAGS.batch_size, progress=progress)
    evaluation.write_evaluation(result, output_dir, model_name=model_name)
    for warning in result.warnings:
        print(f"warning:  {warning}")
    scores = result.scores
    if FLAGS.checkpoint == "best":
        evaluation.add_to_card(result)
    print(f"\n{'class':24}{'precision':>10}{'recall':>10}{'F1':>10}{'examples':>10}")
    for one in scores.classes:
        print(f"{one.name:24}{one.precision:>10.2%}{one.recall:>10.2%}{one.f1:>10.2%}{one.support:>10,}")
    print(
        f"\noverall accuracy {scores.accuracy:.2%} (95 % interval {scores.accuracy_low:.2%} to "
        f"{scores.accuracy_high:.2%}), macro F1 {scores.macro_f1:.2%}, kappa {scores.kappa:.4f}, expected calibration "
        f"error {scores.expected_calibration_error:.2%}"
    )
    print(f"{output_dir}: {evaluation.METRICS_NAME}, {evaluation.PREDICTIONS_NAME} and three figures")
    print(f"next: python -m launch.export --run_dir={FLAGS.run_dir} --export_dir=serving/{run.card.dataset}")


if __name__ == "__main__":
    common.run(main)
