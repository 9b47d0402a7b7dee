"""The reader of PyTorch checkpoints: both forms, views, dtypes, and what must not run, fill the memory or crash."""

import json
import pickle
import struct
import zipfile

import numpy as np
import pytest

from eo_keras.errors import SourceError
from eo_keras.models.pretrained.torch_files import is_torch_file, read_tensors
from tests.harness import checkpoints
from tests.harness.checkpoints import Call, Global, Storage, tensor

RANDOM = np.random.default_rng(0)
TENSORS = {
    "conv1.weight": RANDOM.normal(size=(4, 3, 7, 7)).astype("float32"),
    "bn1.num_batches_tracked": np.array(7),
    "half": RANDOM.normal(size=5).astype("float16"),
    "flags": np.array([True, False]),
}


def rebuild(storage, offset, shape, strides):
    return Call(Global("torch._utils", "_rebuild_tensor"), storage, offset, shape, strides)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("protocol", [2, 4])
def test_zip(tmp_path, protocol):
    content, arrays = checkpoints.state(TENSORS)
    namespace = Call(Global("argparse", "Namespace"))
    whole = {"epoch": 3, "args": namespace, "state_dict": content, "rate": 0.1, "names": ["a", ("b", None)]}
    checkpoints.write_zip(tmp_path / "a.pth", whole, arrays, protocol)
    assert is_torch_file(tmp_path / "a.pth")
    assert_same(read_tensors(tmp_path / "a.pth"), {f"state_dict.{name}": one for name, one in TENSORS.items()})


def test_legacy(tmp_path):
    content, arrays = checkpoints.state(TENSORS)
    checkpoints.write_legacy(tmp_path / "weights", content, arrays)
    assert is_torch_file(tmp_path / "weights")
    assert_same(read_tensors(tmp_path / "weights"), TENSORS)


def test_views_parameters_and_bfloat16(tmp_path):
    numbers = np.arange(12, dtype="<f4")
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), tensor("0", numbers), True, {})
    views = {
        "parameter": parameter,
        "transposed": rebuild(Storage("0", "Float", 12), 0, (3, 4), (1, 3)),
        "part": rebuild(Storage("0", "Float", 12), 5, (2,), (3,)),
        "scalar": rebuild(Storage("0", "Float", 12), 11, (), ()),
        "none": rebuild(Storage("0", "Float", 12), 0, (0, 4), (4, 1)),
        "rounded": rebuild(Storage("1", "BFloat16", 2), 0, (2,), (1,)),
    }
    rounded = (np.array([1.5, -2.25], "<f4").view("<u4") >> 16).astype("<u2")
    checkpoints.write_zip(tmp_path / "a.pt", views, {"0": numbers, "1": rounded})
    found = read_tensors(tmp_path / "a.pt")
    np.testing.assert_array_equal(found["parameter"], numbers)
    np.testing.assert_array_equal(found["transposed"], numbers.reshape(4, 3).T)
    assert found["part"].tolist() == [5, 8] and found["scalar"] == 11 and found["none"].shape == (0, 4)
    assert found["rounded"].tolist() == [1.5, -2.25]


def safetensors(path, header, content=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return path


def test_safetensors(tmp_path):
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]}
    header = {"__metadata__": {"a": "b"}, "flag": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "w": entry}
    numbers = np.arange(6, dtype="<f4").reshape(2, 3)
    path = safetensors(tmp_path / "a.safetensors", header, b"\1\2\3\4" + numbers.tobytes())
    found = read_tensors(path)
    np.testing.assert_array_equal(found["w"], numbers)
    assert found["flag"].tolist() == [1, 2, 3, 4]
    for changes in ({"data_offsets": [4, 24]}, {"shape": [2, -3]}, {"dtype": "F4"}, {"data_offsets": [40, 64]}):
        safetensors(path, {"w": entry | changes}, numbers.tobytes())
        with pytest.raises(SourceError):
            read_tensors(path)
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    with pytest.raises(SourceError, match="neither a checkpoint of PyTorch nor safetensors"):
        read_tensors(path)
    safetensors(path, {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
    with pytest.raises(SourceError, match="inflate"):
        read_tensors(path)


class Runs:
    """An object whose pickle runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_nothing_runs(tmp_path, form):
    made = tmp_path / "made"
    path = tmp_path / "hostile.pth"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"w": Runs(made)}, 2))
    else:
        checkpoints.write_legacy(path, {}, {})
        path.write_bytes(pickle.dumps(checkpoints.MAGIC, 2) + pickle.dumps(Runs(made), 2))
    with pytest.raises(
        SourceError, match=r"hostile.pth: it holds (io|_io)\.open, which is no tensor; expected tensors"
    ):
        read_tensors(path)
    assert not made.exists()


FLOATS = Storage("0", "Float", 4)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"a": Call(Global("os", "system"), "true")}, "os.system, which is no tensor"),
        ({"a": Call(Global("builtins", "eval"), "1")}, "builtins.eval"),
        ({"a": Call(Global("torch.nn.modules.linear", "Linear"))}, "torch.nn.modules.linear.Linear"),
        ({"a": Call(Global("torch", "FloatStorage"))}, "it calls torch.FloatStorage"),
        ({"a": rebuild(FLOATS, 0, (5,), (1,))}, r"shape \(5,\) of 4 numbers"),
        ({"a": rebuild(FLOATS, 2, (3,), (1,))}, r"shape \(3,\) of 4 numbers"),
        ({"a": rebuild(FLOATS, 0, (1 << 40,), (0,))}, "of 4 numbers"),
        ({"a": rebuild(FLOATS, -1, (1,), (1,))}, "a tensor of what is no storage"),
        ({"a": rebuild(FLOATS, 0, (2,), (-1,))}, "a tensor of what is no storage"),
        ({"a": rebuild("0", 0, (2,), (1,))}, "a tensor of what is no storage"),
        ({"a": rebuild(Storage("0", "Float", 1 << 40), 0, (1 << 40,), (1,))}, "inflate to"),
        ({"a": rebuild(Storage("0", "Float", 5), 0, (5,), (1,))}, "the numbers '0' are cut off"),
        ({"a": rebuild(Storage("1", "Float", 1), 0, (1,), (1,))}, "it cannot be read .*archive/data/1"),
        ({"a": {"b": 1}}, "there are no tensors in it"),
        ([1, 2], "there are no tensors in it"),
    ],
)
def test_what_is_no_tensor_is_refused(tmp_path, content, told):
    checkpoints.write_zip(tmp_path / "a.pth", content, {"0": np.zeros(4, "<f4")})
    with pytest.raises(SourceError, match=told):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x80\x02]q\x00h\x00a.", "there are no tensors"),
        (b"\x80\x02a.", "takes more than it put on its stack"),
        (b"\x80\x02K\x01K\x02a.", "appends to what is no list"),
        (b"\x80\x02K\x01(K\x02K\x03u.", "sets items of what is no dictionary"),
        (b"\x80\x02K\x01)R.", "calls what is no known name"),
        (b"\x80\x02h\x05.", "cannot be read"),
        (b"\x80\x02}(u", "cannot be read|without an end"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "cannot be read"),
        (b"\x80\x02cos\nsystem\n.", "os.system"),
        (b"(dp0\n.", "the opcode DICT"),
        (b"\x80\x02K\x01Q.", "a reference that is no storage"),
        (b"\x80\x02\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x02K\x01K\x02b.", "changes what is neither"),
        (b"", "cannot be read"),
    ],
)
def test_damaged_pickles(tmp_path, content, told):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", content)
    with pytest.raises(SourceError, match=told):
        read_tensors(tmp_path / "a.pth")


def test_dictionaries_in_themselves_end(tmp_path):
    # {'a': itself, 'w': tensor}
    content, arrays = checkpoints.state({"w": np.ones(2, "<f4")})
    content["deep"] = content
    checkpoints.write_zip(tmp_path / "a.pth", content, arrays)
    assert list(read_tensors(tmp_path / "a.pth")) == ["w"]


def test_damaged_files(tmp_path):
    content, arrays = checkpoints.state(TENSORS)
    path = tmp_path / "a.pth"
    checkpoints.write_legacy(path, content, arrays)
    whole = path.read_bytes()
    for cut in (0, 10, 40, 200, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(SourceError):
            read_tensors(path)
    checkpoints.write_zip(path, content, arrays)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(SourceError):
        read_tensors(path)
    for number in range(0, len(whole), 997):
        path.write_bytes(whole[:number] + bytes([whole[number] ^ 255]) + whole[number + 1 :])
        try:
            read_tensors(path)
        except SourceError:
            pass
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", checkpoints.pickled(content))
        archive.writestr("archive/data/0", bytes(256 << 20))
    with pytest.raises(SourceError, match="inflate to"):
        read_tensors(path)
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(SourceError, match="neither a checkpoint of PyTorch nor safetensors"):
        read_tensors(path)
