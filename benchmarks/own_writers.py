r"""Writes the examples of a TFRecord file again in one of several ways, in a process of its own; see tfrecord_writers.

Every way reads the file by its own means before the time begins, so that it shows that it understands it too.

Example: python -m benchmarks.own_writers --writer=eo_keras --input=a.tfrecord --output=b.tfrecord
"""

import time

from absl import flags

from benchmarks import measuring
from launch import app, path_flags

FLAGS = flags.FLAGS

flags.DEFINE_enum(
    "writer",
    None,
    ["eo_keras", "tensorflow", "tfds", "bytes"],
    "Library that serialises and writes; bytes: what is serialised already is written without framing.",
    required=True,
)
path_flags.define_path("input", None, "TFRecord file with the examples.", required=True)
path_flags.define_path("output", None, "File to write.", required=True)
flags.DEFINE_enum("encoding", "raw", ["raw", "jpeg"], "tfds: how the images are stored.")


def _eo_keras() -> tuple[int, float]:
    from eo_keras.records import tfrecord

    examples = [tfrecord.decode_example(data) for data in tfrecord.read_records(FLAGS.input)]
    started = time.perf_counter()
    with open(FLAGS.output, "wb") as file:
        for example in examples:
            tfrecord.write_record(file, tfrecord.encode_example(example))
    return len(examples), time.perf_counter() - started


def _bytes() -> tuple[int, float]:
    from eo_keras.records import tfrecord

    examples = list(tfrecord.read_records(FLAGS.input))
    started = time.perf_counter()
    with open(FLAGS.output, "wb") as file:
        for example in examples:
            file.write(example)
    return len(examples), time.perf_counter() - started


def _read_with_tensorflow() -> list[dict[str, bytes | int]]:
    import tensorflow as tf

    found = []
    for data in tf.data.TFRecordDataset(FLAGS.input).as_numpy_iterator():
        features = tf.train.Example.FromString(data).features.feature
        found.append({key: getattr(one, one.WhichOneof("kind")).value[0] for key, one in features.items()})
    return found


def _tensorflow() -> tuple[int, float]:
    import tensorflow as tf

    examples = _read_with_tensorflow()
    started = time.perf_counter()
    with tf.io.TFRecordWriter(FLAGS.output) as writer:
        for example in examples:
            features = {}
            for key, value in example.items():
                if isinstance(value, bytes):
                    features[key] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                else:
                    features[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return len(examples), time.perf_counter() - started


def _tfds() -> tuple[int, float]:
    import numpy as np
    import tensorflow_datasets as tfds

    examples = _read_with_tensorflow()
    packed = tfds.features.Encoding.BYTES
    features = {"label": tfds.features.Scalar(np.int64), "key": tfds.features.Text()}
    if FLAGS.encoding == "jpeg":
        features["image"] = tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg")
    else:
        features["image"] = tfds.features.Tensor(shape=(64, 64, 13), dtype=np.uint16, encoding=packed)
        features["crs"] = tfds.features.Text()
        features["transform"] = tfds.features.Tensor(shape=(6,), dtype=np.float64, encoding=packed)
        for example in examples:
            # It takes arrays; unlike JPEGs, bytes of numbers are not passed on as they are.
            example["image"] = np.frombuffer(example["image"], "<u2").reshape(64, 64, 13)
            example["transform"] = np.frombuffer(example["transform"], "<f8")
    features = tfds.features.FeaturesDict(features)
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    writer = tfds.core.writer.ExampleWriter(tfds.core.file_adapters.FileFormat.TFRECORD)
    started = time.perf_counter()
    encoded = ((0, serializer.serialize_example(features.encode_example(example))) for example in examples)
    writer.write(FLAGS.output, encoded)
    return len(examples), time.perf_counter() - started


def main() -> None:
    """Writes."""
    started = time.perf_counter()
    if FLAGS.writer in ("tensorflow", "tfds"):
        app.import_tensorflow_quietly()
        if FLAGS.writer == "tfds":
            import tensorflow_datasets.core  # noqa: F401
    else:
        import eo_keras.records.tfrecord  # noqa: F401
    import_seconds = time.perf_counter() - started
    write = {"eo_keras": _eo_keras, "tensorflow": _tensorflow, "tfds": _tfds, "bytes": _bytes}[FLAGS.writer]
    examples, seconds = write()
    measuring.report(examples, seconds, **({} if FLAGS.writer == "bytes" else {"import_seconds": import_seconds}))


if __name__ == "__main__":
    app.run(main)
