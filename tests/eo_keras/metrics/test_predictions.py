import csv
import io

import numpy as np
import pytest

from eo_keras.errors import RunError
from eo_keras.metrics.predictions import ClassPredictions, read_predictions

NAMES = ("Forest", 'River, "wild"')


def test_the_file_gives_every_bit_back(tmp_path):
    rng = np.random.default_rng(0)
    first = rng.random(500).astype(np.float32) ** 9
    predicted = ClassPredictions(
        rng.integers(0, 2, 500), np.stack([first, 1 - first], axis=1), tuple(f"a/{n},x" for n in range(500))
    )
    path = tmp_path / "predictions.csv"
    path.write_text(predicted.to_csv(NAMES))
    found, names = read_predictions(path)
    assert names == NAMES and found.keys == predicted.keys and found.probabilities.dtype == np.float32
    np.testing.assert_array_equal(found.probabilities, predicted.probabilities)
    np.testing.assert_array_equal(found.labels, predicted.labels)
    rows = list(csv.DictReader(io.StringIO(predicted.to_csv(NAMES))))
    assert [row["predicted"] for row in rows] == [NAMES[label] for label in predicted.predictions]
    assert float(rows[3]["probability"]) == pytest.approx(predicted.confidences[3])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1 cannot be read"),
        ("key,true,predicted,probability\na,Forest,Forest,0.9\n", "line 1 cannot be read .*its columns are key"),
        ("key,true,predicted,probability,p_A\n", "there is no example"),
        ("key,true,predicted,probability,p_A\na,A,A,1,1\nb,A,A,1\n", "line 3 cannot be read .*4 columns instead of 5"),
        ("key,true,predicted,probability,p_A\na,B,A,1,1\n", "line 2 cannot be read .*'B'"),
        ("key,true,predicted,probability,p_A\na,A,A,1,x\n", "line 2 cannot be read .*'x'"),
    ],
)
def test_another_file(tmp_path, text, words):
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(RunError, match=words):
        read_predictions(path)
