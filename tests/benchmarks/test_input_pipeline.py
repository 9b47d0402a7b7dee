import itertools
import json

import pytest

from benchmarks import harness
from benchmarks import input_pipeline as benchmark
from tests.harness import tiny
from tests.launch.commands import assert_one_line_error, start
from tfrecords_builder import build
from tfrecords_builder.splits import split as splits
from tfrecords_builder.synthetic import archives


@pytest.mark.parametrize(
    ("model", "streamed", "in_memory", "expected"),
    [
        (20, 400, 1000, ["The model is the bottleneck: it takes 20", "delivers 1,000 from memory", "50.0 times"]),
        (20, 400, None, ["The model is the bottleneck", "delivers 400 from the shards", "20.0 times"]),
        (900, 300, None, ["The input is the bottleneck: it delivers 300", "takes 900 (3.0 times", "--cache_gb"]),
        (900, 1200, 450, ["The input is the bottleneck: it delivers 450 examples/s from memory", "2.0 times", "cores"]),
        (None, 300, None, ["delivers 300", "no model was measured"]),
    ],
)
def test_the_sentence_follows_from_the_numbers(model, streamed, in_memory, expected):
    sentence = benchmark.verdict(model, streamed, in_memory)
    assert all(part in sentence for part in expected)
    assert ("--cache_gb" in sentence) == (model == 900 and in_memory is None)


def test_rates_leave_the_first_pass_out():
    now = 0.0
    durations = itertools.chain([100.0], itertools.cycle([1.0]))

    def passes():
        nonlocal now
        for seconds in durations:
            now += seconds
            yield 50

    found = benchmark.rate(passes(), seconds=2.5, repetitions=2, example_bytes=2e6, clock=lambda: now)
    assert found == benchmark.Rate(harness.Spread(50.0, 50.0, 50.0), 100.0)


@pytest.fixture(scope="module")
def records_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("input")
    source = archives.write_eurosat_archive(folder / "rgb.zip", kind="rgb", patches_per_class=4)
    build.build(build.BuildOptions("eurosat_rgb", str(source), str(folder / "rgb"), splits.SplitOptions(seed=1)))
    return folder / "rgb"


def _run(*options):
    return start("benchmarks.input_pipeline", *options).wait()


@pytest.mark.slow
def test_all_stages_of_a_small_folder(records_dir, tmp_path):
    output = tmp_path / "input.json"
    small = [f"--model={tiny.CLASSIFIER}", "--batch_size=8", "--seconds=0.01", "--repetitions=2", f"--output={output}"]
    done = _run(f"--records_dir={records_dir}", "--bands=B04,B02", *small)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert tuple(found["stages"]) == benchmark.STAGES and found["bands"] == ["B04", "B02"]
    rates = [stage["examples_per_second"] for stage in found["stages"].values()]
    for one in [*rates, found["training_step"]]:
        assert 0 < one["low"] <= one["median"] <= one["high"]
    assert all(stage["megabytes_per_second"] > 0 for stage in found["stages"].values())
    medians = [found["stages"][name]["examples_per_second"]["median"] for name in benchmark.STAGES]
    assert found["verdict"] == benchmark.verdict(found["training_step"]["median"], medians[5], medians[7])
    assert done.stdout.splitlines()[-1] == found["verdict"]


def test_mistakes_are_one_line(records_dir):
    done = _run(f"--records_dir={records_dir}", "--repetitions=0")
    assert_one_line_error(done, "repetitions: 0")
