import numpy as np
import tensorflow as tf

from eo_keras.legends.catalogue import IGNORE
from eo_keras.tasks.segmentation import MaskScorer


def test_the_sample_is_of_labeled_pixels_with_their_own_probabilities():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet((1, 1, 1), (2, 8, 8)).astype(np.float32)
    label = random.integers(0, 3, (2, 8, 8)).astype(np.uint8)
    label[0, :7] = IGNORE  # Eight pixels are left of the first tile.
    found = {}
    for sampled in (5, 20):
        scorer = MaskScorer("abc", sampled=sampled)
        kept = scorer.keep(tf.constant(probabilities), tf.constant(label))
        scorer.add(["one", "other"], label, [values.numpy() for values in kept])
        found[sampled] = scorer.result().sample
    assert len(found[5].labels) == 2 * 5 and len(found[20].labels) == 8 + 20
    known = {tuple(row): true for row, true in zip(probabilities.reshape(-1, 3), label.ravel(), strict=True)}
    for sample in found.values():
        assert [known[tuple(row)] for row in sample.probabilities] == sample.labels.tolist()
        assert len({tuple(row) for row in sample.probabilities}) == len(sample.labels)
    assert MaskScorer("abc").keep(tf.constant(probabilities), tf.constant(label))[3:] == ()
