import io

import pytest

from eo_keras.errors import RecordsError
from eo_keras.records import tfrecord


def framed(*records):
    file = io.BytesIO()
    for record in records:
        tfrecord.write_record(file, record)
    return file.getvalue()


def test_masked_crc_of_the_standard_check_value():
    # CRC-32C of "123456789" is 0xE3069283 (RFC 3720, B.4); the mask is the TFRecord format's.
    crc = 0xE3069283
    assert tfrecord.masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_records_round_trip(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(framed(b"one", b"", b"three" * 1000))
    assert list(tfrecord.read_records(path)) == [b"one", b"", b"three" * 1000]


@pytest.mark.parametrize("end", [5, 12, 14, 18, 25])
def test_a_cut_file_is_named(tmp_path, end):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(framed(b"one", b"two")[:end])
    with pytest.raises(RecordsError, match=r"a\.tfrecord: record [01] is cut off or damaged"):
        list(tfrecord.read_records(path))


def test_every_flipped_bit_is_found(tmp_path):
    path, whole = tmp_path / "a.tfrecord", framed(b"one", b"two")
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(RecordsError):
            list(tfrecord.read_records(path))


def test_examples_are_those_of_tensorflow(tmp_path):
    import tensorflow as tf

    features = {"image": bytes(range(256)), "label": -3, "key": b"Forest_1"}
    data = tfrecord.encode_example(features)
    theirs = tf.train.Example.FromString(data).features.feature
    assert theirs["image"].bytes_list.value[0] == bytes(range(256))
    assert theirs["label"].int64_list.value[0] == -3
    assert tfrecord.decode_example(data) == features
    path = str(tmp_path / "a.tfrecord")
    with open(path, "wb") as file:
        tfrecord.write_record(file, data)
    assert [record.numpy() for record in tf.data.TFRecordDataset(path)] == [data]
