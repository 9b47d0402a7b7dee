import dataclasses
import io
import os
import resource
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from PIL import Image

from eo_keras.core import files
from eo_keras.core.output_folders import MANIFEST_NAME
from eo_keras.errors import OptionError, RunError, StorageError
from eo_keras.legends import catalogue as legends
from eo_keras.metrics import calibration
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from eo_keras.records.data_card import StoredImages
from eo_keras.runs import model_card as model_cards
from eo_keras.runs.export_folder import EXTRA_DIR, MODEL_FILE, SIGNATURE, open_export, versions
from eo_keras.sensors import sentinel2
from eo_keras.serving import saved_model as serving
from eo_keras.serving import server, signatures, warmup

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


@pytest.fixture(scope="module")
def loaded(exported):
    """Both exports, loaded by TensorFlow."""
    import tensorflow as tf

    return [tf.saved_model.load(str(report.path)) for _, report in exported]


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
for export, requests, answers in zip(*[iter(sys.argv[1:])] * 3):
    model = tf.saved_model.load(export)
    with np.load(requests, allow_pickle=True) as requests:
        given = {name: tf.constant(values) for name, values in requests.items()}
    served = model.signatures["serving_default"](image=given["serving_default"])
    others = [model.serve(given["serving_default"]), model.examples(given["examples"])]
    if "bytes" in given:
        others += [model.bytes(given["bytes"]), model.signatures["bytes"](image_bytes=given["bytes"])]
    for other in others:
        assert all(np.array_equal(served[name], other[name]) for name in ("probabilities", "class_id", "class_name"))
    np.savez(answers, **{name: value.numpy() for name, value in served.items()})
found = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
print(sorted(found & {"keras", "tf_keras", "eo_keras", "launch"}))
"""


def test_tensorflow_alone_gives_the_same_answers(exported, tmp_path):
    arguments = []
    for number, (run, report) in enumerate(exported):
        offered = signatures.of_model(run.card, {"image": (64, 64, None)})
        requests = {one.name: one.request({"image": images_for(run)}) for one in offered}
        requests = {name: next(iter(inputs.values())) for name, inputs in requests.items()}
        assert requests.keys() == report.inputs.keys()
        np.savez(tmp_path / f"{number}-requests.npz", **requests)
        arguments += [report.path, tmp_path / f"{number}-requests.npz", tmp_path / f"{number}.npz"]
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
        beside = {MANIFEST_NAME, server.CONFIG_NAME, server.COMPOSE_NAME}
        assert {path.name for path in report.path.parent.iterdir()} == {"1", *beside}
        card = model_cards.read_model_card(report.path / "assets.extra")
        fitted = card.temperature and card.temperature["temperature"]
        assert fitted == (TEMPERATURE if run.card.dtype == "uint16" else None)
        assert "tensorflow.saved_model.load" in card.needs and "eo_keras.models" in run.card.needs
        assert dataclasses.replace(card, temperature=None, needs=run.card.needs) == run.card
        pictures = {"bytes": "image_bytes: string (None,)"} if run.card.dtype == "uint8" else {}
        assert {name: str(tensor) for name, (tensor,) in report.inputs.items()} == {
            "serving_default": f"image: {run.card.dtype} (None, 64, 64, {len(run.card.bands)})",
            **pictures,
            "examples": "examples: string (None,)",
        }
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


def test_a_server_is_given_requests_to_warm_up_with(exported, loaded):
    import tensorflow as tf
    from tensorflow_serving.apis.model_pb2 import ModelSpec
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

    for (run, report), model in zip(exported, loaded, strict=True):
        answered = {}
        for record in tfrecord.read_records(report.path / EXTRA_DIR / warmup.NAME):
            log = PredictionLog.FromString(record)
            request = log.predict_log.request
            signature, ((name, tensor),) = request.model_spec.signature_name, request.inputs.items()
            values = tf.make_ndarray(tensor)
            # Nothing else is in it: as a client would build it.
            built = PredictRequest(model_spec=ModelSpec(signature_name=signature))
            built.inputs[name].CopyFrom(tf.make_tensor_proto(values))
            assert log == PredictionLog(predict_log=PredictLog(request=built))
            answers = model.signatures[signature](**{name: tf.constant(values)})
            answered[signature] = answers["probabilities"].numpy()
        assert answered.keys() == report.inputs.keys()
        image = serving._numbers(run.card)["image"][1:2]
        expected = model.serve(image)["probabilities"].numpy()
        assert all(np.array_equal(values, expected) for values in answered.values())


def picture(image, **options):
    """A JPEG, or another form by Pillow's options."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, **{"format": "JPEG", "quality": 90, **options})
    return file.getvalue()


def test_pictures_are_decoded_as_in_training(rgb, loaded):
    import tensorflow as tf

    from eo_keras.data.parse import parse_images

    rng = np.random.default_rng(1)
    coarse = [Image.fromarray(rng.integers(0, 1 + 80 * n, (8, 8, 3)).astype(np.uint8)) for n in (1, 2, 3)]
    # All ways to keep color at a lower resolution.
    pictures = [picture(np.asarray(one.resize((64, 64))), subsampling=n) for n, one in enumerate(coarse)]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures])
    examples = tf.constant([records.encode(records.Example(picture, 3, "key")) for picture in pictures])
    assert np.array_equal(parse_images(examples, rgb.card.records), pixels)
    expected = loaded[0].serve(pixels)["probabilities"]
    assert len(np.unique(expected, axis=0)) == 3
    assert np.array_equal(loaded[0].bytes(tf.constant(pictures))["probabilities"], expected)
    assert np.array_equal(loaded[0].examples(examples)["probabilities"], expected)
    png = [picture(image, format="PNG") for image in pixels]
    assert np.array_equal(loaded[0].bytes(tf.constant(png))["probabilities"], expected)


@pytest.mark.parametrize(
    ("signature", "given", "words"),
    [
        ("bytes", picture(np.zeros((32, 64, 3), np.uint8)), "expected shape"),
        ("bytes", picture(np.zeros((64, 64), np.uint8)), "expected shape"),
        ("bytes", picture(np.zeros((64, 64, 4), np.uint8), format="PNG"), "expected shape"),
        ("bytes", picture(np.zeros((64, 64), np.uint16), format="PNG"), "a PNG of 16 bits"),
        ("bytes", b"no image", "[Uu]nknown image file format"),
        ("bytes", b"", "[Ii]nput is empty"),
        ("examples", records.encode(records.Example(picture(np.zeros((32, 64, 3), np.uint8)), None, "key")), "shape"),
        ("examples", b"no example", "[Cc]ould not parse"),
        ("examples", tfrecord.encode_example({"key": b"key"}), "image"),
    ],
)
def test_a_server_refuses_what_is_no_image_of_the_model(loaded, signature, given, words):
    import tensorflow as tf

    served = getattr(loaded[0], signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        served(tf.constant([given]))


def test_examples_hold_other_bands_in_another_order(ms):
    import tensorflow as tf

    bands = ms.card.bands[:4]
    stored = StoredImages(tuple(reversed(ms.card.bands)), "uint16", "raw", 64)
    card = dataclasses.replace(ms.card, bands=bands, records=stored)
    (signature,) = (one for one in signatures.of_model(card, {"image": (64, 64, 4)}) if one.name == "examples")
    images = images_for(ms)
    tiles, expected = images[..., ::-1], images[..., :4]
    placed = ("EPSG:32631", (10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
    data = [records.encode(records.Example(tile.astype("<u2").tobytes(), 1, "key", *placed)) for tile in tiles]
    assert np.array_equal(signature.images({"examples": tf.constant(data)})["image"], expected)
    request = signature.request({"image": expected})["examples"]
    assert np.array_equal(signature.images({"examples": tf.constant(request)})["image"], expected)
    double = records.encode(records.Example(tiles[:2].tobytes(), 1, "key"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="reshape"):
        signature.images({"examples": tf.constant([double])})


def test_openvino_gives_the_same_answers(exported):
    import openvino

    for run, report in exported:
        card, model = open_export(report.path)
        # Some processors compute in bfloat16 by default.
        compiled = openvino.Core().compile_model(str(report.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        images = images_for(run)
        answers = compiled(images)
        expected = model(images).numpy()
        np.testing.assert_allclose(answers["probabilities"], expected, rtol=0, atol=1e-5)
        assert np.array_equal(answers["class_id"], expected.argmax(axis=1))
        assert list(answers["class_name"]) == [card.legend.class_names[n] for n in answers["class_id"]]


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
    (tmp_path / server.COMPOSE_NAME).write_text("of the user")
    assert versions(tmp_path) == (3, 7)
    report = serving.export(rgb, tmp_path)
    assert (report.version, report.newest) == (8, 8)
    config = tmp_path / server.CONFIG_NAME
    config.write_text("edited")
    earlier = serving.export(rgb, tmp_path, version=5)
    assert (earlier.version, earlier.newest) == (5, 8)
    # What others have there stays.
    beside = {MANIFEST_NAME, server.CONFIG_NAME, server.COMPOSE_NAME}
    assert {path.name for path in tmp_path.iterdir()} == {"007", "3", "5", "8", "notes", ".partial-9", *beside}
    assert (tmp_path / server.COMPOSE_NAME).read_text() == "of the user" and config.read_text() == "edited"


def test_a_server_is_given_its_files(exported, tmp_path):
    import yaml
    from google.protobuf import text_format
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    folder = exported[0][1].path.parent
    assert server.model_name(tmp_path / "2018: land use") == "2018__land_use"
    for name, texts in (
        (folder.name, {name: (folder / name).read_bytes() for name in server.contents(folder.name)}),
        ("2018", server.contents("2018")),
    ):
        (model,) = text_format.Parse(texts[server.CONFIG_NAME], ModelServerConfig()).model_config_list.config
        ((service_name, service),) = yaml.safe_load(texts[server.COMPOSE_NAME])["services"].items()
        (volume,) = service["volumes"]
        assert (model.name, model.model_platform, service_name) == (name, "tensorflow", name)
        assert (volume["source"], volume["target"], volume["read_only"]) == (".", model.base_path, True)
        assert service["command"] == [f"--model_config_file={model.base_path}/{server.CONFIG_NAME}"]
        assert [port.split(":")[1:] for port in service["ports"]] == [["8500", "8500"], ["8501", "8501"]]


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


@pytest.mark.parametrize(
    ("fault", "changed"),
    [("other answers", SIGNATURE), ("other answers", "bytes"), ("other names", "examples"), ("not finite", None)],
)
def test_an_export_that_answers_otherwise_gets_no_name(rgb, tmp_path, monkeypatch, fault, changed):
    run, words = rgb, f"its export predicts otherwise by the signature '{changed}'"
    if fault == "not finite":
        model = keras.models.clone_model(rgb.model)
        model.set_weights([weight * np.nan for weight in rgb.model.get_weights()])
        run, words = dataclasses.replace(rgb, model=model), "not finite"
    else:
        write = serving._write

        def falsified(*arguments):
            offered, loaded = write(*arguments)
            answer = loaded.signatures[changed]

            def other(**request):
                answers = dict(answer(**request))
                if fault == "other answers":
                    return answers | {"probabilities": answers["probabilities"] + 2 * serving.TOLERANCE}
                return answers | {"class_name": answers["class_name"][::-1]}

            return offered, types.SimpleNamespace(signatures={**loaded.signatures, changed: other})

        monkeypatch.setattr(serving, "_write", falsified)
    with pytest.raises(RunError, match=words):
        serving.export(run, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [100_000, 1000])
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
        images = serving._numbers(run.card)["image"]
        assert images.shape == (6, 64, 64, len(run.card.bands)) and images.dtype == run.card.dtype
        assert images[:3].min() == 1 and images[3].max() > 0.99 * np.iinfo(run.card.dtype).max
        assert not images[5].any() and not images[4, 32:].any() and images[4, :32].all()
