import dataclasses
import os
import resource
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

from eo_keras.core import files
from eo_keras.core.output_folders import MANIFEST_NAME
from eo_keras.errors import OptionError, RunError, StorageError
from eo_keras.legends import catalogue as legends
from eo_keras.metrics import calibration
from eo_keras.records import tfrecord
from eo_keras.runs import model_card as model_cards
from eo_keras.runs.export_folder import EXTRA_DIR, MODEL_FILE, SIGNATURE, open_export, versions
from eo_keras.sensors import sentinel2
from eo_keras.serving import saved_model as serving
from eo_keras.serving import warmup

RGB = ("B04", "B03", "B02")
CLASSES = legends.EUROSAT.class_names
TEMPERATURE = 7.0


@pytest.fixture(scope="module")
def rgb(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("rgb") / "run", "uint8", RGB)


@pytest.fixture(scope="module")
def ms(make_run, tmp_path_factory):
    """13 bands, built under reduced precision as a GPU would train them."""
    folder = tmp_path_factory.mktemp("ms") / "run"
    return make_run(folder, "uint16", sentinel2.EUROSAT_ORDER, policy="mixed_bfloat16")


@pytest.fixture(scope="module")
def exported(rgb, ms, tmp_path_factory):
    """Both runs, each with the report of its first export."""
    folder = tmp_path_factory.mktemp("serving")
    labels, probabilities = np.arange(10) % 3, np.full((10, 10), 0.1)
    fitted = dataclasses.replace(calibration.calibrate(labels, probabilities, "val"), temperature=TEMPERATURE)
    return [(rgb, serving.export(rgb, folder / "rgb")), (ms, serving.export(ms, folder / "ms", calibration=fitted))]


def expected_of(run):
    """The softmax of the run's logits, of the 13-band run after the temperature."""
    logits = keras.Model(run.model.input, run.model.get_layer("logits").output).predict(images_for(run), verbose=0)
    scaled = logits.astype(np.float64) / (TEMPERATURE if len(run.card.bands) == 13 else 1)
    odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def images_for(run, count=5):
    """Digital numbers of rising brightness and contrast; the last image is wholly without data."""
    rng = np.random.default_rng(7)
    top = 256 if run.card.dtype == "uint8" else 12000
    shape = (64, 64, len(run.card.bands))
    images = np.stack([rng.integers(1, 1 + (top - 1) * n // count, shape) for n in range(1, count + 1)])
    images[-1] = 0
    return images.astype(run.card.dtype)


ALONE = """
import sys
# TensorFlow itself imports Keras where it finds it; here it finds neither Keras nor this package.
sys.modules.update(dict.fromkeys(("keras", "tf_keras", "eo_keras", "launch")))
import numpy as np, tensorflow as tf
for export, images, answers in zip(*[iter(sys.argv[1:])] * 3):
    model = tf.saved_model.load(export)
    given = np.load(images)
    served = model.signatures["serving_default"](image=tf.constant(given))
    called = model.serve(given)
    assert all(np.array_equal(served[name], called[name]) for name in ("probabilities", "class_id", "class_name"))
    np.savez(answers, **{name: value.numpy() for name, value in served.items()})
found = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
print(sorted(found & {"keras", "tf_keras", "eo_keras", "launch"}))
"""


def test_tensorflow_alone_gives_the_same_answers(exported, tmp_path):
    arguments = []
    for number, (run, report) in enumerate(exported):
        np.save(tmp_path / f"{number}.npy", images_for(run))
        arguments += [report.path, tmp_path / f"{number}.npy", tmp_path / f"{number}.npz"]
    command = [sys.executable, "-c", ALONE, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[]\n"
    for number, (run, _) in enumerate(exported):
        expected = expected_of(run)
        with np.load(tmp_path / f"{number}.npz", allow_pickle=True) as answers:
            assert answers["probabilities"].dtype == np.float32 and answers["class_id"].dtype == np.int64
            np.testing.assert_allclose(answers["probabilities"], expected, rtol=0, atol=1e-5)
            assert answers["class_id"].tolist() == expected.argmax(axis=1).tolist()
            assert len(set(answers["class_id"])) > 1
            assert [name.decode() for name in answers["class_name"]] == [CLASSES[n] for n in answers["class_id"]]


@pytest.mark.parametrize("endpoint", [serving.ENDPOINT, SIGNATURE])
def test_keras_loads_it_as_a_layer(exported, endpoint):
    for run, report in exported:
        layer = keras.layers.TFSMLayer(str(report.path), call_endpoint=endpoint)
        answers = layer(images_for(run))
        expected = expected_of(run)
        np.testing.assert_allclose(answers["probabilities"], expected, rtol=0, atol=1e-5)


def test_folder_and_report(exported, tmp_path):
    for run, report in exported:
        names = {path.relative_to(report.path).as_posix() for path in report.path.rglob("*") if path.is_file()}
        assert {"saved_model.pb", "variables/variables.index", "assets.extra/model_card.json"} <= names
        assert (report.version, report.newest, report.path.name) == (1, 1, "1")
        assert report.bytes == sum((report.path / name).stat().st_size for name in names)
        # A server that runs as another user must be able to read it.
        assert report.path.stat().st_mode & 0o777 == files.make_folder(tmp_path / "plain").stat().st_mode & 0o777
        assert {path.name for path in report.path.parent.iterdir()} == {"1", MANIFEST_NAME}
        card = model_cards.read_model_card(report.path / "assets.extra")
        fitted = card.temperature and card.temperature["temperature"]
        assert fitted == (TEMPERATURE if run.card.dtype == "uint16" else None)
        assert "tensorflow.saved_model.load" in card.needs and "eo_keras.models" in run.card.needs
        assert dataclasses.replace(card, temperature=None, needs=run.card.needs) == run.card
        assert [str(tensor) for tensor in report.inputs] == [
            f"image: {run.card.dtype} (None, 64, 64, {len(run.card.bands)})"
        ]
        assert [str(tensor) for tensor in report.outputs] == [
            "class_id: int64 (None,)",
            "class_name: string (None,)",
            "probabilities: float32 (None, 10)",
        ]
        assert report.checked_images == 6 and report.largest_difference <= serving.TOLERANCE


def test_an_export_is_opened_with_its_card(exported, tmp_path):
    import tensorflow as tf

    for run, report in exported:
        card, model = open_export(report.path.parent)
        assert model.folder == report.path and model.image_size == 64
        fitted = card.temperature and card.temperature["temperature"]
        assert (card.legend, fitted) == (run.card.legend, TEMPERATURE if run.card.dtype == "uint16" else None)
        images = images_for(run)
        probabilities = model(images, training=False)
        assert probabilities.dtype == tf.float32
        np.testing.assert_allclose(probabilities, expected_of(run), rtol=0, atol=1e-5)
        assert np.array_equal(tf.function(model)(images[:2]), model(images[:2]))
    (tmp_path / "2").symlink_to(exported[0][1].path)
    (tmp_path / "010").symlink_to(report.path)
    assert open_export(tmp_path)[1].folder.name == "010"


def test_exports_that_cannot_be_opened(exported, tmp_path):
    for name in ("empty", "bare", "changed", "damaged"):
        shutil.copytree(exported[0][1].path, tmp_path / name / "1")
    shutil.rmtree(tmp_path / "empty" / "1")
    shutil.rmtree(tmp_path / "bare" / "1" / EXTRA_DIR)
    card = model_cards.read_model_card(tmp_path / "changed" / "1" / EXTRA_DIR)
    card = dataclasses.replace(card, bands=card.bands[:2])
    model_cards.write_model_card(card, tmp_path / "changed" / "1" / EXTRA_DIR)
    (tmp_path / "damaged" / "1" / MODEL_FILE).write_bytes(b"damaged")
    for name, words in (
        ("missing", "there is no such folder"),
        ("empty", "neither saved_model.pb nor a version"),
        ("bare", "there is no such folder"),
        ("changed", "as model_card.json says"),
        ("damaged", "cannot be loaded"),
    ):
        with pytest.raises(RunError, match=words) as caught:
            open_export(tmp_path / name)
        assert "\n" not in str(caught.value)


def declared_prediction_log():
    """The messages of tensorflow_serving/apis/prediction_log.proto and predict.proto, as far as they are used."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from tensorflow.core.framework import tensor_pb2

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="test/prediction_log.proto", package="test", syntax="proto3")
    file.dependency.append(tensor_pb2.DESCRIPTOR.name)
    for message, name, number, kind in (
        ("PredictionLog", "predict_log", 6, ".test.PredictLog"),
        ("PredictLog", "request", 1, ".test.PredictRequest"),
        ("PredictRequest", "inputs", 2, ".test.PredictRequest.InputsEntry"),
    ):
        label = field.LABEL_REPEATED if name == "inputs" else field.LABEL_OPTIONAL
        declared = file.message_type.add(name=message)
        declared.field.add(name=name, number=number, type=field.TYPE_MESSAGE, type_name=kind, label=label)
    entry = declared.nested_type.add(name="InputsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    tensor = ".tensorflow.TensorProto"
    entry.field.add(name="value", number=2, type=field.TYPE_MESSAGE, type_name=tensor, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.PredictionLog"))


def test_a_server_is_given_a_request_to_warm_up_with(exported):
    import tensorflow as tf

    log_class = declared_prediction_log()
    for run, report in exported:
        (record,) = tfrecord.read_records(report.path / "assets.extra" / warmup.NAME)
        (name,) = (inputs := log_class.FromString(record).predict_log.request.inputs)
        image = tf.make_ndarray(inputs[name])
        assert image.dtype == run.card.dtype and image.shape == (1, 64, 64, len(run.card.bands))
        answers = tf.saved_model.load(str(report.path)).signatures["serving_default"](**{name: tf.constant(image)})
        assert np.isfinite(answers["probabilities"].numpy()).all()


def test_a_run_of_reduced_precision_is_exported_in_full(exported):
    from tensorflow.core.protobuf import saved_model_pb2

    _, report = exported[1]
    content = saved_model_pb2.SavedModel.FromString((report.path / "saved_model.pb").read_bytes())
    graph = content.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    found = {node.attr[key].type for node in nodes for key in ("T", "DstT", "SrcT", "dtype") if key in node.attr}
    float32, half, bfloat16 = 1, 19, 14
    assert float32 in found and not found & {half, bfloat16}


def test_versions_count_up(rgb, tmp_path):
    for name in ("3", "007", "notes", ".partial-9"):
        (tmp_path / name).mkdir()
    assert versions(tmp_path) == (3, 7)
    report = serving.export(rgb, tmp_path)
    assert (report.version, report.newest) == (8, 8)
    earlier = serving.export(rgb, tmp_path, version=5)
    assert (earlier.version, earlier.newest) == (5, 8)
    # What others have there stays.
    assert {path.name for path in tmp_path.iterdir()} == {"007", "3", "5", "8", "notes", ".partial-9", MANIFEST_NAME}


@pytest.mark.parametrize(
    ("version", "words"),
    [(0, "from 1 to"), (-1, "from 1 to"), (2**63, "from 1 to"), (2, "already holds version 2")],
)
def test_versions_that_cannot_be(rgb, tmp_path, version, words):
    (tmp_path / "2").mkdir()
    with pytest.raises(OptionError, match=words):
        serving.export(rgb, tmp_path, version=version)
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_folders_that_cannot_be(rgb, exported, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file of this name"):
        serving.export(rgb, tmp_path / "file")
    with pytest.raises(StorageError, match="one version"):
        serving.export(rgb, exported[0][1].path)
    with pytest.raises(OptionError, match="lies in the run folder"):
        serving.export(rgb, rgb.folder / "serving")
    with files.FolderLock(tmp_path, StorageError), pytest.raises(StorageError, match="another process"):
        serving.export(rgb, tmp_path)
    assert not (rgb.folder / "serving").exists()


@pytest.mark.parametrize("fault", ["other answers", "other names", "not finite"])
def test_an_export_that_answers_otherwise_gets_no_name(rgb, tmp_path, monkeypatch, fault):
    run, words = rgb, "its export predicts otherwise"
    if fault == "not finite":
        model = keras.models.clone_model(rgb.model)
        model.set_weights([weight * np.nan for weight in rgb.model.get_weights()])
        run, words = dataclasses.replace(rgb, model=model), "not finite"
    else:
        write = serving._write

        def falsified(*arguments):
            loaded = write(*arguments)
            answer = loaded.signatures[SIGNATURE]

            def other(image):
                answers = dict(answer(image=image))
                if fault == "other answers":
                    return answers | {"probabilities": answers["probabilities"] + 2e-5}
                return answers | {"class_name": answers["class_name"][::-1]}

            return types.SimpleNamespace(signatures={SIGNATURE: other})

        monkeypatch.setattr(serving, "_write", falsified)
    with pytest.raises(RunError, match=words):
        serving.export(run, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [2_000_000, 1000])
def test_no_room(rgb, tmp_path, limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StorageError, match="File too large.*Free some space") as caught:
            serving.export(rgb, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_nothing(rgb, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "_check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        serving.export(rgb, tmp_path)
    assert os.listdir(tmp_path) == []


def test_check_images_are_of_the_models_type(rgb, ms):
    for run in (rgb, ms):
        images = serving._digital_numbers(run.card)
        assert images.shape == (6, 64, 64, len(run.card.bands)) and images.dtype == run.card.dtype
        assert images[:3].min() == 1 and images[3].max() > 0.99 * np.iinfo(run.card.dtype).max
        assert not images[5].any() and not images[4, 32:].any() and images[4, :32].all()
