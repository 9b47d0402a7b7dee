import json
import pathlib
import sys

import numpy as np
import pytest

from eo_keras.errors import SourceError
from tests.faults import container_mutators, mutations, mutators, trials


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Undamaged inputs: for both data sets a zip, a folder and records."""
    folder = tmp_path_factory.mktemp("base")
    trials.make_base(folder, None)
    return folder


def check(outcomes, total):
    """Shows the table, and fails at any fault, or where everything or nothing was refused."""
    print("", *mutations.lines(outcomes), sep="\n")
    counts = mutations.table(outcomes)
    assert counts["all"]["tried"] == len(outcomes) == total
    assert sum(counts["all"][name] for name in (trials.REFUSED, trials.EQUAL, "faults")) == total
    for name, family in trials.FAMILIES.items():
        assert counts[name][trials.REFUSED] > 0, name
        tried = {outcome.mutator.split(" (")[0] for outcome in outcomes if outcome.family == name}
        assert tried == set(family.mutators)
    for name in ("builder: zip", "builder: JPEG", "builder: GeoTIFF", "reader: TFRecord"):
        assert counts[name][trials.EQUAL] > 0, name
    assert [line for line in mutations.lines(outcomes) if line.startswith("fault")] == []


def test_200_damaged_inputs_are_refused_or_read_correctly():
    check(mutations.run(200), 200)


@pytest.mark.slow
@pytest.mark.real_data
def test_2000_damaged_real_patches_are_refused_or_read_correctly(real_data):
    check(mutations.run(2000, real_data / "eurosat"), 2000)


def _undamaged(base, source):
    here = base / "eurosat_ms"
    return {
        "zip": lambda: here / "source.zip",
        "jpeg": lambda: next((base / "eurosat_rgb" / "folder").rglob("*.jpg")),
        "tiff": lambda: next((here / "folder").rglob("*.tif")),
        "tfrecord": lambda: here / "records" / "eurosat_ms-test.tfrecord-00000-of-00001",
        "card": lambda: here / "records" / "card.json",
    }[source]().read_bytes()


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("zip", container_mutators.ZIP),
        ("jpeg", mutators.JPEG),
        ("tiff", mutators.TIFF),
        ("tfrecord", container_mutators.TFRECORD | container_mutators.FORGED),
        ("card", container_mutators.CARD),
    ],
)
def test_every_mutator_is_deterministic_and_damages(base, source, kinds):
    data = _undamaged(base, source)
    for name, mutate in kinds.items():
        damaged = [mutate(np.random.default_rng(seed), data) for seed in range(10)]
        assert damaged == [mutate(np.random.default_rng(seed), data) for seed in range(10)], name
        assert sum(one != data for one in damaged) >= 5, name


def test_what_counts_as_a_fault(base, tmp_path, monkeypatch):
    worker = trials.Worker(base, tmp_path)
    kinds = list(trials.FAMILIES["builder: JPEG"].mutators)
    cut = kinds.index("cut")
    assert worker.try_input("builder: JPEG", cut).result == trials.REFUSED

    def build_as(function):
        monkeypatch.setattr(trials, "_build", function)
        return worker.try_input("builder: JPEG", cut)

    def fail(dataset, source, output):
        raise ZeroDivisionError("oh")

    def refuse_nameless(dataset, source, output):
        raise SourceError("something", "it is bad")

    def refuse_late(dataset, source, output):
        output.mkdir()
        (output / "card.json").write_text("{}")
        raise SourceError(output, "it is bad")

    def keep_old(dataset, source, output):
        # A reader that does not notice what was damaged.
        records = base / "eurosat_rgb" / "records"
        (output.parent / "output").symlink_to(records)
        return trials.cards.read_data_card(records)

    for function, words in (
        (fail, "ZeroDivisionError: oh"),
        (refuse_nameless, "something"),
        (refuse_late, "a card was left"),
        (keep_old, "differs in field [1]"),
    ):
        outcome = build_as(function)
        assert outcome.result == trials.FAULT and words in outcome.words, outcome
    one = ("Forest", b"1", None, None)
    with pytest.raises(trials.WrongContentError, match="without a"):
        trials._check_equal({}, {"a": one})
    with pytest.raises(trials.WrongContentError, match="with b"):
        trials._check_equal({"a": one, "b": one}, {"a": one})


_FAKE = """
import json, os, sys, time
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    name, number = json.loads(line)
    if number == 1:
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
    if number == 2:
        time.sleep(60)
    outcome = {"family": name, "number": number, "mutator": "", "result": "refused", "words": str(os.getpid())}
    print(json.dumps(outcome), flush=True)
"""


def test_a_worker_that_dies_or_hangs_is_reported_and_replaced():
    process = mutations.WorkerProcess([sys.executable, "-c", _FAKE], seconds=1)
    try:
        outcomes = [process.run("builder: zip", number) for number in range(4)]
    finally:
        process.end()
    assert [outcome.result for outcome in outcomes] == ["refused", "fault", "fault", "refused"]
    assert "status -9: last words" in outcomes[1].words and "it hangs" in outcomes[2].words
    assert outcomes[0].words != outcomes[3].words
    broken = mutations.WorkerProcess([sys.executable, "-c", "raise SystemExit('no such thing')"])
    with pytest.raises(RuntimeError, match="no such thing"):
        broken.run("builder: zip", 0)


def test_the_table_as_json(tmp_path, monkeypatch, capsys):
    outcome = trials.Outcome("reader: card", 3, "cut", trials.FAULT, "it hangs")
    monkeypatch.setattr(mutations, "run", lambda total, data, report: [outcome] * total)
    path = pathlib.Path(tmp_path / "table.json")
    monkeypatch.setattr(sys, "argv", ["mutations", "--inputs=2", f"--output={path}"])
    mutations.main()
    written = json.loads(path.read_text())
    assert written["patches"] == "generated" and written["table"]["all"]["faults"] == 2
    assert "fault: reader: card, number 3, cut: 'it hangs'" in capsys.readouterr().out
