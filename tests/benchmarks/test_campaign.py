"""Campaigns: what is run, scores over seeds and folds, and the page; on run folders without networks."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from benchmarks import campaign, campaign_curve, campaign_plan, campaign_scores, harness, kept_campaigns, report
from benchmarks.campaign_plan import EVALUATED, INTERRUPTED, TRAINED, WAITING, PlanError
from eo_keras.core import files
from eo_keras.core.serialization import to_json
from eo_keras.errors import RunError
from eo_keras.evaluation import report as evaluations
from eo_keras.geo.coordinates import corners_from_centres
from eo_keras.metrics import comparison
from eo_keras.metrics.mask_predictions import MaskPredictions
from eo_keras.metrics.predictions import ClassPredictions
from eo_keras.metrics.segmentation import SegmentationScorer
from eo_keras.records import data_card as cards
from eo_keras.records import example as codec
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.sweeps import sweep as sweeps
from eo_keras.training.options import TrainingOptions
from launch import options, sweep
from tests.harness import modalities
from tfrecords_builder import build
from tfrecords_builder.splits import spatial
from tfrecords_builder.splits import split as splits
from tfrecords_builder.synthetic import archives

RESAMPLES, TILES, SIZE = 400, 12, 16

PLAN = {
    "title": "Sensors together",
    "text": "Three classes.",
    "build": ["python -m launch.build --output_dir=records/modal"],
    "records_dir": "records/modal",
    "seeds": [1, 2],
    "scores": ["iou:b", "miou", "accuracy", "expected_calibration_error"],
    "rows": [
        {"name": "s1", "title": "radar", "flags": {"bands": "s1:all"}},
        {
            "name": "late",
            "title": "both",
            "flags": {"bands": "s2:all;s1:all", "fusion": "late"},
            "evaluations": ["--each_removed"],
        },
    ],
    "compare": [
        {"first": "late", "second": "s1", "scores": ["iou:b", "miou"]},
        {"first": "late/test-without-s2", "second": "s1", "scores": ["miou"]},
    ],
}
FLAGS = (
    "--model=deeplab_resnet14\n--batch_size=2\n--epochs=3\n--warmup_epochs=1\n--crop=32\n--validation_from_train=0\n"
)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign") / "records"
    modalities.write(folder, {"train": 2, "test": 2})
    return folder


@pytest.fixture
def work(tmp_path, records):
    """A function that writes a plan, changed at will, and returns it with its planned runs."""

    def make(folds=0, **changes):
        content = PLAN | changes
        folder = tmp_path / "results" / "campaigns" / "sensors"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(content | ({"folds": folds} if folds else {})))
        (folder / "flags.txt").write_text(FLAGS)
        plan = campaign_plan.read_plan(folder)
        return plan, campaign_plan.planned_runs(plan, str(tmp_path / "runs"), str(records))

    return make


def model_card(run, records):
    """The card that training writes, of a network that is not there."""
    card = cards.read_data_card(records)
    shared = {"reflectance": None, "resolution_m": 10.0, "patch_size": 64, "normalisation": {}, "dtype": "uint16"}
    inputs = tuple(
        model_cards.ModelInput(
            name=part.partition(":")[0],
            modality=part.partition(":")[0],
            sensor="any",
            bands=("X",),
            units="",
            level="",
            records=card.images,
            feature="image",
            **shared,
        )
        for part in run.training.options.bands.split(";")
    )
    return model_cards.ModelCard(
        model=run.training.options.model,
        task="segmentation",
        dataset=card.dataset,
        data_fingerprint=card.fingerprint,
        bands=("X",),
        level="",
        nodata=0,
        legend=card.legend,
        parameters=1234567,
        initialisation="random",
        flags=to_json(run.training.options),
        selection={"split": None, "metric": None, "value": None, "epoch": 3},
        scores={},
        versions={},
        attribution="",
        inputs=inputs,
        **shared,
    )


def trained(run, records):
    """Writes what training leaves: card, history, environment, and a file that stands for the model."""
    run.folder.mkdir(parents=True)
    model_cards.write_model_card(model_card(run, records), run.folder)
    rows = [{"epoch": epoch, "seconds": 600.0 * epoch, "images_per_second": 10.0 + epoch} for epoch in (1, 2, 3)]
    (run.folder / runs.HISTORY_NAME).write_bytes(runs.history_bytes(rows))
    environment = {"processors": 2, "platform": "Linux", "versions": {"eo-keras": "1", "tensorflow": "2"}}
    (run.folder / runs.ENVIRONMENT_NAME).write_text(json.dumps(environment))
    (run.folder / runs.MODEL_NAME).write_bytes(run.name.encode())


def masks(seed, share):
    """True and predicted masks of all tiles; a share of the pixels is predicted at random."""
    random = np.random.default_rng(seed)
    true = np.random.default_rng(0).integers(0, 3, (TILES, SIZE, SIZE)).astype(np.uint8)
    # Tiles differ in how hard they are.
    hard = share * np.linspace(0.5, 1.5, TILES)[:, None, None]
    return true, np.where(random.random(true.shape) < hard, random.integers(0, 3, true.shape), true).astype(np.uint8)


def evaluated(run, seed, share, tiles=range(TILES), evaluation="test"):
    """Writes an evaluation as launch.evaluate does, without figures."""
    scorer, (true, predicted) = SegmentationScorer(modalities.LEGEND.class_names), masks(seed, share)
    for number in tiles:
        scorer.add(f"place{number // 2}-{number}", true[number], predicted[number])
    scores = scorer.scores(resamples=RESAMPLES, negative_log_likelihood=0.5)
    overall = {
        **scores.overall,
        "expected_calibration_error": dataclasses.replace(scores["accuracy"], value=0.01 * seed),
    }
    table = MaskPredictions(scorer, 0.5).to_csv().encode()
    content = {
        "model_sha256": files.sha256_of_file(run.folder / runs.MODEL_NAME),
        "split": "test",
        "data_fingerprint": run.data_fingerprint,
        "trained_on": run.data_fingerprint,
        "selection": {},
        "tta": "none",
        "warnings": [],
        "predictions_sha256": files.sha256_of_bytes(table),
        **dataclasses.replace(scores, overall=overall, sections={"calibration": {}, "selective": {}}).to_json(),
    }
    folder = run.folder / runs.EVALUATION_DIR / evaluation
    folder.mkdir(parents=True)
    (folder / evaluations.METRICS_NAME).write_text(json.dumps(content))
    (folder / "predictions.csv").write_bytes(table)


def finish(planned, records, **more):
    """Trains and evaluates all runs: late errs in a tenth of the pixels, without a sensor and s1 in more."""
    for run in planned:
        trained(run, records)
        late = run.row.name == "late"
        evaluated(run, run.seed, 0.1 if late else 0.4, **more)
        for name in ("s1", "s2") if late else ():
            evaluated(run, run.seed + 10, 0.5, evaluation=f"test-without-{name}", **more)


def iou(true, predicted, label):
    return np.sum((true == label) & (predicted == label)) / np.sum((true == label) | (predicted == label))


def test_scores_over_seeds_are_those_of_the_masks(work, records):
    plan, planned = work()
    finish(planned, records)
    found = campaign_scores.results(plan, campaign_plan.complete(planned), RESAMPLES)
    assert found["open"] == [] and [row["seeds"] for row in found["rows"]] == [[1, 2]] * 2
    radar, late = found["rows"]
    assert (late["parameters"], late["hours"], late["images_per_second"]) == (1234567, 1.0, 12.0)
    assert set(late["evaluations"]) == {"test", "test-without-s1", "test-without-s2"}
    by_hand = {share: [iou(*masks(seed, share), 1) for seed in (1, 2)] for share in (0.1, 0.4)}
    for row, share in ((radar, 0.4), (late, 0.1)):
        score = row["evaluations"]["test"]["iou:b"]
        assert score["values"] == pytest.approx(by_hand[share], rel=1e-12)
        assert score["mean"] == pytest.approx(np.mean(by_hand[share]), rel=1e-12)
        assert score["deviation"] == pytest.approx(np.std(by_hand[share], ddof=1), rel=1e-9)
        assert score["low"] < score["mean"] < score["high"]
        assert row["runs"][0]["evaluations"]["test"]["iou:b"]["value"] == score["values"][0]
    # Counts do not give the calibration: a mean without an interval.
    error = late["evaluations"]["test"]["expected_calibration_error"]
    assert error["mean"] == pytest.approx(0.015) and "low" not in error
    (pair,) = (one for one in found["comparisons"] if one["score"] == "iou:b")
    pooled = [
        iou(*(np.concatenate(both) for both in zip(masks(1, s), masks(2, s), strict=True)), 1) for s in (0.1, 0.4)
    ]
    assert pair["pooled"]["difference"] == pytest.approx(pooled[0] - pooled[1], rel=1e-9)
    assert pair["over_seeds"]["difference"] == pytest.approx(np.mean(by_hand[0.1]) - np.mean(by_hand[0.4]), rel=1e-9)
    assert pair["pooled"]["p_value"] == pair["pooled"]["p_holm"] < 0.01
    removed = next(one for one in found["comparisons"] if one["first"] == "late/test-without-s2")
    assert removed["pooled"]["difference"] < 0 and [one["seed"] for one in removed["seeds"]] == [1, 2]
    mious = [one["pooled"] for one in found["comparisons"] if one["score"] == "miou"]
    assert min(one["p_holm"] for one in mious) == 2 * min(one["p_value"] for one in mious)


def test_one_seed_is_compared_as_launch_evaluate_does(work, records):
    plan, planned = work(seeds=[2])
    finish(planned, records)
    found = campaign_scores.results(plan, campaign_plan.complete(planned), RESAMPLES)
    both = [evaluations.read_evaluation(run.folder / "evaluation" / "test").as_run(run.name) for run in planned]
    expected = comparison.compare(both).between("late-2", "s1-2")
    (pair,) = (one for one in found["comparisons"] if (one["score"], one["first"]) == ("miou", "late"))
    for one in (pair["pooled"], *pair["seeds"], pair["over_seeds"]):
        ends = one["difference"], one["low"], one["high"]
        assert ends == pytest.approx((expected.difference, expected.low, expected.high), rel=1e-9)
    assert pair["seeds"][0]["p_value"] == expected.p_value
    score, stored = found["rows"][0]["evaluations"]["test"]["miou"], both[0].scores["miou"]
    assert (score["mean"], score["low"], score["high"]) == pytest.approx((stored.value, *stored.ends), rel=1e-12)


def test_the_interval_of_a_mean_is_as_wide_as_its_seeds_differ():
    values = [0.5, 0.6, 0.64, 0.7]
    mean, drawn = campaign_scores.over_seeds(values, [np.full(50_000, value) for value in values])
    assert mean == pytest.approx(0.61) and drawn.mean() == pytest.approx(mean, abs=1e-3)
    assert drawn.var() == pytest.approx(np.var(values, ddof=1) / 4, rel=0.03)
    _, alone = campaign_scores.over_seeds([0.5], [np.array([0.4, 0.6])])
    assert alone.tolist() == [0.4, 0.6]


def test_the_tiles_of_all_folds_are_scored_together(work, records):
    plan, planned = work(folds=2, seeds=[1], scores=["iou:b", "miou"], places="^[^-]+")
    assert [run.name for run in planned] == ["s1-1-fold1", "s1-1-fold2", "late-1-fold1", "late-1-fold2"]
    for run in planned:
        trained(run, records)
        tiles = range(0, 5) if run.fold == 1 else range(5, TILES)
        evaluated(run, 1, 0.1 if run.row.name == "late" else 0.4, tiles)
        for name in ("s1", "s2") if run.row.name == "late" else ():
            evaluated(run, 5, 0.5, tiles, evaluation=f"test-without-{name}")
    done = campaign_plan.complete(planned)
    found = campaign_scores.results(plan, done, RESAMPLES)
    score = found["rows"][1]["evaluations"]["test"]["iou:b"]
    assert score["values"] == pytest.approx([iou(*masks(1, 0.1), 1)], rel=1e-12)
    assert [run["fold"] for run in found["rows"][1]["runs"]] == [1, 2]
    # Two tiles of a place are drawn together.
    outcomes = campaign_scores.group_runs(plan, done["late", 1], RESAMPLES).outcomes["test"]
    assert (outcomes.count, len(outcomes.keys)) == (TILES / 2, TILES)
    # A row of which a fold is open is not scored, and a tile in two folds is refused.
    shutil.rmtree(planned[3].folder / "evaluation")
    assert list(campaign_plan.complete(planned)) == [("s1", 1)]
    for name in ("test", "test-without-s1", "test-without-s2"):
        evaluated(planned[3], 1, 0.1, range(TILES), evaluation=name)
    with pytest.raises(RunError, match="folds: 5 tiles are tested in two, first place0-0"):
        campaign_scores.results(plan, campaign_plan.complete(planned), RESAMPLES)


@dataclasses.dataclass
class Stored:
    """A stored evaluation of patches of three classes."""

    predictions: ClassPredictions

    class scores:
        task, class_names = "classification", ("a", "b", "c")


def test_patches_are_tiles_of_one_pixel():
    random = np.random.default_rng(0)
    predictions = ClassPredictions(random.integers(0, 3, 60), random.random((60, 3)), tuple(map(str, range(60))))
    outcomes = campaign_scores.counts_of(Stored(predictions), ["accuracy", "recall:b", "macro_f1"], "", RESAMPLES)
    found = outcomes.estimates()
    assert found["accuracy"].value == pytest.approx(predictions.correct.mean())
    assert found["recall:b"].value == pytest.approx(predictions.correct[predictions.labels == 1].mean())
    twice = campaign_scores.joined([outcomes, outcomes])
    assert (twice.sums == 2 * twice.sums // 2).all() and len(twice.keys) == 60
    assert twice.estimates()["macro_f1"].value == pytest.approx(found["macro_f1"].value)


def test_a_block_is_a_square_of_land(tmp_path):
    # Twice 0.2 degrees north of Darmstadt, 22.2 km each: of blocks of 20 km, never the same one again.
    degrees = np.array([[8.65, 49.87], [8.65, 50.07], [8.65, 50.27], [8.6501, 49.8701]])
    names = spatial.block_names(corners_from_centres(degrees, 640.0), 20)
    blocks = np.array([[int(number) for number in name.split("/")] for name in names])
    assert len(np.unique(blocks[:3], axis=0)) == 3
    assert (np.abs(np.diff(blocks[:3, 1])) <= 2).all() and (blocks[0] == blocks[3]).all()
    source = archives.write_eurosat_archive(tmp_path / "ms.zip", kind="ms", patches_per_class=4)
    split = splits.SplitOptions(test_fraction=0.5)
    build.build(build.BuildOptions("eurosat_ms", str(source), str(tmp_path / "ms"), split))
    (shard,) = cards.read_data_card(tmp_path / "ms").splits["test"].shards
    keys = [one.key for one in codec.read_examples(tmp_path / "ms" / shard.name)]
    names = campaign_scores.block_names(str(tmp_path / "ms"), keys, 1.0)
    assert list(names) == keys and len(set(names.values())) > 10
    # All of the generated patches lie within one large block.
    assert len(set(campaign_scores.block_names(str(tmp_path / "ms"), keys, 5000.0).values())) == 1


def test_blocks_that_agree_widen_the_interval():
    random = np.random.default_rng(0)
    blocks = np.repeat(np.arange(50), 20)
    correct = (random.random(50) < 0.8)[blocks]
    labels = random.integers(0, 3, 1000)
    probabilities = np.eye(3)[np.where(correct, labels, (labels + 1) % 3)]
    stored = Stored(ClassPredictions(labels, probabilities, tuple(f"{place:04d}" for place in range(1000))))
    together = campaign_scores.counts_of(
        stored, ["accuracy"], "", 4000, lambda keys: {key: str(blocks[int(key)]) for key in keys}
    )
    apart = campaign_scores.counts_of(stored, ["accuracy"], "", 4000)
    widths = [one.high - one.low for one in (each.estimates()["accuracy"] for each in (together, apart))]
    # 20 patches that are all correct or all incorrect count as one: the square root of 20 is 4.5.
    assert 3.5 < widths[0] / widths[1] < 5.5
    assert widths[1] == pytest.approx(2 * 1.96 * np.sqrt(correct.mean() * (1 - correct.mean()) / 1000), rel=0.2)


def checkpoint(run, epoch):
    """Writes the state of a checkpoint."""
    state = {
        "epoch": epoch,
        "variables": "none",
        "under_way": {},
        "best": {"epoch": epoch},
        "options": to_json(run.training.options),
        "data_fingerprint": run.data_fingerprint,
    }
    folder = run.folder / runs.CHECKPOINT_DIR
    folder.mkdir(parents=True, exist_ok=True)
    (folder / runs.STATE_NAME).write_text(json.dumps(state))


def test_open_runs_are_run_and_others_kept_and_a_failure_does_not_stop_the_rest(work, records, monkeypatch):
    plan, planned = work()
    first, cut, again, fails = planned
    trained(first, records)
    evaluated(first, 1, 0.4)
    checkpoint(cut, 1)
    trained(again, records)
    assert [run.state() for run in planned] == [EVALUATED, INTERRUPTED, TRAINED, WAITING]
    modes, said, collected = [], [], []

    def train_in_process(training, mode, log, flags_file, show, stop):
        assert flags_file.read_text() == training.flags_text and "--fusion=late" in training.flags_text
        modes.append(mode)
        if training is fails.training:
            return "no space"
        run = next(run for run in planned if run.training is training)
        (files.make_folder(run.folder / "logs") / "x").write_text("")
        shutil.rmtree(run.folder)
        trained(run, records)
        checkpoint(run, 3)
        return ""

    def run_command(words, limit_seconds):
        run = next(run for run in planned if f"--run_dir={run.folder}" in words)
        assert "--nocalibrate" in words and "--split=test" in words
        names = ["test-without-s1", "test-without-s2"] if "--each_removed" in words else ["test"]
        for name in names:
            evaluated(run, run.seed, 0.1, evaluation=name)
        return "evaluated\n", 1.0

    monkeypatch.setattr(sweep, "train_in_process", train_in_process)
    monkeypatch.setattr(harness, "run_command", run_command)
    states = {"report": said.append, "stop": lambda: False, "after": lambda: collected.append(1)}
    assert campaign.run_open(planned, only_next=True, **states) == [] and modes == [sweeps.RESUME]
    assert cut.state() == EVALUATED and again.state() == TRAINED
    assert campaign.run_open(planned, **states) == ["late-2: no space"]
    assert modes == [sweeps.RESUME, sweeps.NEW] and len(collected) == 2
    assert [line for line in said if not line.startswith("  ")] == [
        "late-1: resume and evaluate",
        "s1-2: evaluate",
        "late-2: train and evaluate",
    ]
    assert (cut.folder.parent / "logs" / "late-1.log").read_text() == "evaluated\n" * 2
    found = campaign_scores.results(plan, campaign_plan.complete(planned), RESAMPLES)
    assert found["open"] == ["late-2"] and [row["seeds"] for row in found["rows"]] == [[1, 2], [1]]


def test_runs_with_other_flags_or_stale_scores_are_refused(work, records):
    plan, planned = work()
    finish(planned[:1], records)
    (planned[0].folder / runs.MODEL_NAME).write_bytes(b"another")
    with pytest.raises(RunError, match="its model_sha256 is .*Evaluate the run again"):
        campaign_scores.results(plan, campaign_plan.complete(planned), RESAMPLES)
    _, others = work(rows=[PLAN["rows"][0] | {"flags": {"bands": "s1:all", "label_smoothing": 0.25}}], compare=[])
    problem = "the run was started with `label_smoothing=0.0`, not `label_smoothing=0.25`; expected what the plan says"
    with pytest.raises(RunError, match=problem):
        others[0].state()
    checkpoint(others[1], 1)
    with pytest.raises(RunError, match="not `label_smoothing=0.25`"):
        others[0].state()
    with pytest.raises(RunError, match="started with `label_smoothing=0.25`"):
        planned[2].state()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seeds": [1, 1]}, "the seeds 1, 1; expected each seed once"),
        ({"scores": ["iuo"]}, "the score 'iuo'"),
        ({"more": 1}, "it cannot be read"),
        ({"compare": [{"first": "late", "second": "s3", "scores": ["miou"]}]}, "it compares the row 's3'"),
        ({"rows": [{"name": "a-b", "title": ""}], "compare": []}, "the row 'a-b'"),
        ({"curve": "train_fraction"}, "the row 's1' has no train_fraction"),
    ],
)
def test_what_a_plan_cannot_say(work, change, problem):
    with pytest.raises(PlanError, match=problem):
        work(**change)


def test_a_campaign_stands_on_the_page_with_what_repeats_it(work, records, tmp_path):
    plan, planned = work()
    folder = plan.folder
    assert kept_campaigns.section(folder) == []
    finish(planned[:3], records)
    campaign.collect(plan, planned, folder / "results.json", RESAMPLES)
    shutil.copy(report.DOCS / "results" / "campaigns" / "ombria" / "threshold.json", folder)
    found = json.loads((folder / "results.json").read_text())
    text = "\n".join(kept_campaigns.sections(folder.parent))
    score = found["rows"][0]["evaluations"]["test"]["iou:b"]
    ends = f"({score['low']:.4f} to {score['high']:.4f})"
    assert f"| {score['mean']:.4f} ± {score['deviation']:.4f} {ends} |" in text
    assert f"| {', '.join(f'{value:.4f}' for value in score['values'])} | 1.00 | 12.0 |" in text
    assert "Not trained yet: late-2." in text and "Linux, 2 processors; eo-keras 1, tensorflow 2." in text
    assert "| both | as trained |" in text and "| both | without s2 |" in text and "| radar | as trained |" not in text
    (pair,) = (one for one in found["comparisons"] if one["score"] == "iou:b")
    assert f"| both - radar | IoU of b | {pair['pooled']['difference']:+.4f} |" in text
    assert "| both, without s2 - radar | mIoU | -" in text and "A threshold for single pixels" in text
    commands = text.partition("```\n")[2].splitlines()
    assert commands[0] == PLAN["build"][0] and commands[1].endswith("campaigns/sensors --runs_dir=runs/sensors")
    assert "--modality=s2 --output=docs/results/campaigns/sensors/threshold.json" in commands[2]


def test_scores_of_runs_that_are_elsewhere_are_not_written_over(work, records, tmp_path):
    plan, planned = work()
    states = dict.fromkeys((run.name for run in planned), EVALUATED)
    assert campaign.default_output(plan, "runs", states) == plan.folder / "results.json"
    finish(planned, records)
    campaign.collect(plan, planned, plan.folder / "results.json", RESAMPLES)
    assert campaign.default_output(plan, "runs", states) == plan.folder / "results.json"
    states["late-2"] = WAITING
    assert str(campaign.default_output(plan, "runs", states)) == "runs/results.json"


def test_rows_of_another_machine_are_kept(work, records, tmp_path):
    plan, planned = work(compare=[])
    finish(planned, records)
    path = plan.folder / "results.json"
    campaign.collect(plan, planned, path, RESAMPLES)
    before = json.loads(path.read_text())
    # Here is a run of the one row alone, which two seeds on another machine precede.
    shutil.rmtree(tmp_path / "runs")
    trained(planned[0], records)
    evaluated(planned[0], 1, 0.2)
    states = {run.name: run.state() for run in planned}
    kept = campaign.rows_made_elsewhere(plan, planned, {"s1"})
    assert [row["name"] for row in kept] == ["late"]
    assert campaign.default_output(plan, "runs", states, kept) == pathlib.Path("runs/results.json")
    trained(planned[2], records)
    evaluated(planned[2], 2, 0.2)
    states = {run.name: run.state() for run in planned}
    assert campaign.default_output(plan, "runs", states, kept) == path
    campaign.collect(plan, planned, path, RESAMPLES, kept)
    after = json.loads(path.read_text())
    assert after["rows"][1] == before["rows"][1] and after["open"] == []
    assert after["rows"][0]["evaluations"]["test"]["iou:b"]["values"] == pytest.approx(
        [iou(*masks(seed, 0.2), 1) for seed in (1, 2)], rel=1e-12
    )
    # Other flags or a comparison: the runs are needed.
    other = [PLAN["rows"][0], {**PLAN["rows"][1], "flags": {"bands": "s2:all"}}]
    for changes in ({"compare": [], "rows": other}, {}):
        assert campaign.rows_made_elsewhere(*work(**changes), {"s1"}) == []


def test_a_curve_has_a_line_for_each_network_and_its_figure_stands_on_the_page(work, records):
    rows = [
        {"name": f"{name}_{batch}", "title": f"{name}, {batch} a step", "flags": {"batch_size": batch, "bands": bands}}
        for name, bands in (("s1", "s1:all"), ("late", "s2:all"))
        for batch in (4, 2)
    ]
    plan, planned = work(rows=rows, compare=[], curve="batch_size")
    for run in planned[:-1]:
        trained(run, records)
        evaluated(run, run.seed, 0.1 if run.row.name.startswith("late") else 0.4)
    campaign.collect(plan, planned, plan.folder / "results.json", RESAMPLES)
    found = json.loads((plan.folder / "results.json").read_text())
    lines = campaign_curve.lines_of(plan, found)
    assert {name: [place for place, _ in line] for name, line in lines.items()} == {"s1": [2, 4], "late": [2, 4]}
    assert lines["late"][1][1]["values"] == pytest.approx([iou(*masks(seed, 0.1), 1) for seed in (1, 2)], rel=1e-12)
    assert (plan.folder / "curve.png").read_bytes() == campaign_curve.curve_png(plan, found)
    assert "results/campaigns/sensors/curve.png)" in "\n".join(kept_campaigns.section(plan.folder))


def test_the_calibration_error_stands_before_and_after(work, records):
    plan, planned = work()
    finish(planned, records)
    errors = {"before": {"expected_calibration_error": 0.08}, "after": {"expected_calibration_error": 0.01}}
    path = planned[0].folder / "evaluation" / "test" / "metrics.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"calibration": {"temperature": 0.5, "split": errors}}))
    campaign.collect(plan, planned, plan.folder / "results.json", RESAMPLES)
    text = "\n".join(kept_campaigns.section(plan.folder))
    assert "| 8.00%, 1.00% | 1.00 |" in text and "| - | 1.00 |" in text


def test_rows_may_have_records_and_common_flags_of_their_own(work, records, tmp_path):
    others = tmp_path / "others-2"
    modalities.write(others, {"train": 3, "test": 2})
    (tmp_path / "results" / "campaigns" / "sensors").mkdir(parents=True)
    (tmp_path / "results" / "campaigns" / "sensors" / "long.txt").write_text(FLAGS.replace("epochs=3", "epochs=30"))
    own = {"records_dir": str(tmp_path / "others-{seed}"), "flagfile": "long.txt"}
    flags_of = {"bands": "s1:all", "weights": "{runs_dir}/s1-{seed}/model.keras"}
    _, planned = work(
        rows=[PLAN["rows"][0], {"name": "b", "title": "b", "flags": flags_of} | own], compare=[], seeds=[2]
    )
    assert [run.training.options.records_dir for run in planned] == [str(records), str(others)]
    assert [run.training.options.epochs for run in planned] == [3, 30]
    assert planned[1].training.options.weights == str(tmp_path / "runs" / "s1-2" / "model.keras")
    assert planned[0].data_fingerprint != planned[1].data_fingerprint


def test_a_row_that_others_start_from_is_trained_and_not_scored(work, records):
    first = {"name": "first", "title": "", "flags": {"bands": "s1:all"}, "scored": False}
    other = {"flags": {"bands": "s1:all", "weights": "{runs_dir}/first-{seed}/model.keras"}}
    rows = [first, PLAN["rows"][0] | other | {"evaluations": ["--object_class={seed}", "--checkpoint=last --flip"]}]
    plan, planned = work(rows=rows, seeds=[2], compare=[])
    for run in planned:
        trained(run, records)
    assert [run.state() for run in planned] == [EVALUATED, TRAINED] and not list(planned[0].evaluation_commands())
    assert list(planned[1].evaluations()) == ["test", "test-last-flip"]
    commands = [" ".join(words) for words in planned[1].evaluation_commands()]
    assert commands[1].endswith("--nocalibrate --object_class=2") and commands[2].endswith("--checkpoint=last --flip")
    found = campaign_scores.results(plan, campaign_plan.complete(planned), RESAMPLES)
    assert found["rows"] == [] and found["open"] == ["s1-2"]


@pytest.mark.parametrize(
    "folder", sorted((report.DOCS / "results" / "campaigns").iterdir()), ids=lambda folder: folder.name
)
def test_the_plans_of_the_project_can_be_read(folder):
    plan = campaign_plan.read_plan(folder)
    for row in plan.rows:
        values = sweep.training_flags(str(folder / row.flagfile), plan.records_dir, row.flags)
        values.run_dir = "run"
        options.read(TrainingOptions, values)
    if (folder / "results.json").is_file():
        kept = {row["name"]: row for row in json.loads((folder / "results.json").read_text())["rows"]}
        assert kept.keys() <= {row.name for row in plan.rows}
        for row in (row for row in plan.rows if row.name in kept):
            assert (kept[row.name]["title"], kept[row.name]["flags"]) == (row.title, row.flags)


@pytest.mark.slow
def test_the_command_trains_evaluates_and_does_nothing_again(tmp_path):
    archives.write_eurosat_archive(tmp_path / "rgb.zip", kind="rgb", patches_per_class=6)
    words = [f"--source={tmp_path / 'rgb.zip'}", f"--output_dir={tmp_path / 'records'}", "--dataset=eurosat_rgb"]
    harness.run_command([sys.executable, "-m", "launch.build", *words])
    content = {
        "title": "Patches",
        "text": "",
        "build": [],
        "records_dir": str(tmp_path / "records"),
        "seeds": [1],
        "scores": ["accuracy", "macro_f1"],
        "rows": [
            {"name": "plain", "title": "plain", "evaluations": ["--tta=d4"]},
            {"name": "bad", "title": "bad", "flags": {"weights": str(tmp_path / "nothing.keras")}},
        ],
    }
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "plan.json").write_text(json.dumps(content))
    (tmp_path / "plan" / "flags.txt").write_text(
        "--model=resnet14\n--epochs=1\n--warmup_epochs=0\n--batch_size=16\n--validation_from_train=0.2\n"
    )
    command = [sys.executable, "-m", "benchmarks.campaign", f"--plan={tmp_path / 'plan'}"]
    command += [f"--runs_dir={tmp_path / 'runs'}", "--resamples=200"]
    first = subprocess.run(command, cwd=harness.ROOT, capture_output=True, text=True)
    assert first.returncode == 2 and "1 of 2 runs: failed, the first of them bad-1: " in first.stderr, first.stderr
    assert "nothing.keras" in first.stderr and first.stderr.count("\n") == 1
    found = json.loads((tmp_path / "plan" / "results.json").read_text())
    assert list(found["rows"][0]["evaluations"]) == ["test", "test-d4"] and found["open"] == ["bad-1"]
    written = (tmp_path / "runs" / "plain-1" / "evaluation" / "test" / "metrics.json").stat().st_mtime_ns
    again = subprocess.run([*command, "--rows=plain"], cwd=harness.ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and "plain-1" not in again.stdout, again.stderr
    assert (tmp_path / "runs" / "plain-1" / "evaluation" / "test" / "metrics.json").stat().st_mtime_ns == written


def test_flags_of_the_command():
    values = flags.FlagValues()
    campaign.define_flags(values)
    values(["campaign", "--plan=p", "--runs_dir=r", "--rows=late,early", "--next"])
    assert values.rows == ["late", "early"] and values.next and not values.collect


def test_a_row_of_one_seed_and_evaluations_that_use_it(work, records):
    rows = [
        {"name": "other", "title": "another network", "scored": False, "seeds": [1]},
        PLAN["rows"][1] | {"evaluations": ["--each_removed", "--without=s2 --stand_in={runs_dir}/other-1"]},
    ]
    _, planned = work(rows=rows, compare=[])
    assert [run.name for run in planned] == ["other-1", "late-1", "late-2"]
    for run in planned:
        trained(run, records)
    assert list(planned[2].evaluations()) == ["test", "test-without-s2", "test-without-s1", "test-without-s2-stand-in"]
    *_, words = planned[2].evaluation_commands()
    assert words[-2:] == ["--without=s2", f"--stand_in={planned[0].folder}"]
