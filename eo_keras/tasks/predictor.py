"""Predictions of a model for a dataset, on all devices of a strategy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from eo_keras.data.folder import RecordDataset, reading
from eo_keras.data.parse import by_name, unwrapped
from eo_keras.metrics.predictions import PredictedSample
from eo_keras.tasks.task import Predicted, TrainingTask


class Predictor:
    """Predictor of datasets by a model.

    Args:
        model: from digital numbers to probabilities, made in the strategy's scope; called as a Keras model is.
        task: the model's task.
        class_names: names of the classes in the legend's order.
        strategy: the strategy, or None for one device.
        **scorer: options of `Task.scorer`.
    """

    def __init__(
        self,
        model: Callable[..., tf.Tensor],
        task: TrainingTask,
        class_names: Sequence[str],
        strategy: tf.distribute.Strategy | None = None,
        **scorer: Any,
    ):
        self._strategy = strategy or tf.distribute.get_strategy()
        self._new_scorer = lambda: task.scorer(class_names, **scorer)
        keep = self._new_scorer().keep

        def predict(image, label):
            return keep(model(image, training=False), label)

        self._predict = tf.function(lambda image, label: self._strategy.run(predict, (image, label)), autograph=False)

    def __call__(
        self,
        records: RecordDataset | None,
        dataset: Any,
        stage: str = "",
        progress: Callable[[str, int, int], None] | None = None,
        *,
        samples: int = 0,
    ) -> Predicted:
        """Predicts every example of weight above 0; the others only fill the last batch.

        Args:
            records: the records folder that the dataset reads, which errors name.
            dataset: batches of `eo_keras.data.pipeline.evaluation`, with keys.
            stage: name of this pass for `progress`.
            progress: called with (stage, done, total) batches.
            samples: number of the first examples to keep with their images.

        Raises:
            RecordsError: if a record is damaged.
            LegendError: if a mask holds a number outside the legend.
        """
        scorer, kept, examples = self._new_scorer(), [], 0
        total, started = int(dataset.cardinality()), time.monotonic()
        for number, batch in enumerate(reading(records, self._strategy.experimental_distribute_dataset(dataset)), 1):
            image, label, weight, key = batch
            present = self._gathered(weight) > 0
            outputs = [self._gathered(values)[present] for values in self._predict(image, label)]
            labels = self._gathered(label)[present]
            keys = [name.decode() for name in self._gathered(key)[present]]
            predictions = scorer.add(keys, labels, outputs)
            examples += len(keys)
            if len(kept) < samples:
                images = {name: self._gathered(values)[present] for name, values in by_name(image).items()}
                every = [
                    unwrapped({name: values[place] for name, values in images.items()}) for place in range(len(keys))
                ]
                kept += map(PredictedSample, keys, every, labels, predictions)
            if progress:
                progress(stage, number, total)
        return Predicted(scorer.result(), tuple(kept[:samples]), examples / (time.monotonic() - started))

    def _gathered(self, values: Any) -> np.ndarray:
        # A batch is divided in order: the first device holds its first examples.
        return np.concatenate([part.numpy() for part in self._strategy.experimental_local_results(values)])
