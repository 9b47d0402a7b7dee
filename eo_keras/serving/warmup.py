"""Warm-up requests of TensorFlow Serving, which runs them when it loads a model.

Without them, the first request is several times as slow as the next: memory is taken and kernels are chosen. Serving
reads `assets.extra/tf_serving_warmup_requests`, a TFRecord file of `PredictionLog` messages
(tensorflow/serving, saved_model_warmup.md). Their classes are in a package of their own, tensorflow-serving-api, which
is not needed: the message is three levels around a `TensorProto`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from eo_keras.records import tfrecord

NAME = "tf_serving_warmup_requests"
"""Name of the file in `assets.extra`."""

_PREDICT_LOG = 6  # PredictionLog.predict_log: prediction_log.proto
_REQUEST = 1  # PredictLog.request
_MODEL_SPEC, _INPUTS = 1, 2  # PredictRequest.model_spec, and inputs, a map: predict.proto
_SIGNATURE_NAME = 3  # ModelSpec.signature_name: model.proto
_KEY, _VALUE = 1, 2  # Of every map's entries.


def write(path: str | os.PathLike[str], requests: Iterable[tuple[str, Mapping[str, np.ndarray]]]) -> None:
    """Writes the file.

    Args:
        path: the file.
        requests: of each request, the name of its signature, and the values of the signature's inputs by name.
    """
    with open(path, "wb") as file:
        for signature, inputs in requests:
            request = _field(_MODEL_SPEC, _field(_SIGNATURE_NAME, signature.encode()))
            for name, values in inputs.items():
                tensor = tf.make_tensor_proto(values).SerializeToString()
                request += _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, tensor))
            tfrecord.write_record(file, _field(_PREDICT_LOG, _field(_REQUEST, request)))


def _field(number: int, content: bytes) -> bytes:
    """Returns a field of a message, length-delimited: key, length, content."""
    length_delimited = 2
    return bytes([number << 3 | length_delimited]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
