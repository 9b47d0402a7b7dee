"""Writes examples with the package `tfrecord` of PyPI, and tells how long that took.

Run by the peers' interpreter: .venv-peers/bin/python benchmarks/peers/tfrecord_writer.py --input=I --output=O
"""

import argparse
import time

import figures

_STARTED = time.perf_counter()
import tfrecord  # noqa: E402

_IMPORT_SECONDS = time.perf_counter() - _STARTED
_KINDS = {"bytes_list": "byte", "int64_list": "int", "float_list": "float"}


def read(path: str) -> list[dict]:
    """Returns the examples of a TFRecord file as the package's writer wants them: values and kinds by feature."""
    found = []
    for data in tfrecord.reader.tfrecord_iterator(path):
        example = tfrecord.example_pb2.Example()
        example.ParseFromString(data)
        kinds = {key: feature.WhichOneof("kind") for key, feature in example.features.feature.items()}
        features = example.features.feature
        found.append({key: (getattr(features[key], kind).value[0], _KINDS[kind]) for key, kind in kinds.items()})
    return found


def main() -> None:
    """Writes, with the reading left out of the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", required=True, help="TFRecord file with the examples")
    parser.add_argument("--output", required=True, help="TFRecord file to write")
    options = parser.parse_args()
    examples = read(options.input)
    started = time.perf_counter()
    writer = tfrecord.TFRecordWriter(options.output)
    for example in examples:
        writer.write(example)
    writer.close()
    seconds = time.perf_counter() - started
    figures.report(len(examples), seconds, ["tfrecord", "crc32c", "protobuf"], import_seconds=_IMPORT_SECONDS)


if __name__ == "__main__":
    main()
