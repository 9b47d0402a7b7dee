r"""Freezes what the program computes on generated data, so that a restructured one can be held against it, to the bit.

Examples:
  python -m tests.harness.oracle --out=new.json                  # builds, trains, asks
  python -m tests.harness.oracle --out=base.json --keep=base     # and keeps records, runs and answers
  python -m tests.harness.oracle --out=new.json --old=base       # asks runs that another version has trained
  python -m tests.harness.oracle --compare base.json new.json    # a line a difference; exit code 1 if there is one

The result is one flat JSON object, name -> SHA-256 or repr of a number. Both ways to make it give the same names, so
that what --old finds is compared as it is. Names that begin with `environment.` say where it was made. They are not
held to be equal, but another processor or another TensorFlow may round otherwise: compare what one machine has made.

Nothing here imports the program's modules by their paths, for these move: it is run by its commands, and its files are
read by others' readers. The two exceptions are `_generator`, and `import eo_keras.models`, which every model card
promises for opening model.keras.

Not covered: figures and pages, comparisons of several runs, sweeps, TensorBoard's files, several devices, what is
printed.
"""

import argparse
import concurrent.futures
import csv
import hashlib
import importlib
import io
import json
import multiprocessing
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]

ENVIRONMENT = "environment."

VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # One thread an operation: sums then have one order whatever else the machine does, and two commands run at once.
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

CARD_LEFT_OUT = ("schema", "checksum")
"""Of card.json: the version of its layout, and the checksum of the file, which covers that version. No other field
holds a time, a path or the program's version."""

HISTORY_LEFT_OUT = ("seconds", "images_per_second", "tiles_per_second")
"""Of history.csv: how long it took."""

PREDICTIONS_NAMES = ("answers.csv", "predictions.csv")
"""What the file of an evaluation's answers is, or may become."""

PATCHES_PER_CLASS = {"rgb": 24, "ms": 8}

BUILDS = {
    "rgb_random": {"dataset": "eurosat_rgb", "source": "rgb.zip", "val_fraction": 0.2},
    "rgb_lists": {"dataset": "eurosat_rgb", "source": "rgb.zip", "split": "lists", "lists": "rgb"},
    "ms_blocks": {
        "dataset": "eurosat_ms",
        "source": "ms.zip",
        "split": "spatial",
        "block_km": 3,
        "buffer_km": 0.5,
        "val_fraction": 0.2,
        "shard_mb": 1,
    },
    "ms_fold_beam": {"dataset": "eurosat_ms", "source": "ms.zip", "fold": "2/5", "engine": "beam"},
    "ombria_published": {
        "dataset": "ombria_s2",
        "source": "ombria.zip",
        "bands_in_file": "B11,B08,B03",
        "scene_level": "L2A",
    },
    "tiles_city": {
        "dataset": "urban_atlas",
        "cities": "cities/cities.csv",
        "bands": "RGB",
        "tile_size": 64,
        "test_fraction": 0.25,
        "val_fraction": 0.25,
    },
    "tiles_blocks": {
        "dataset": "urban_atlas",
        "cities": "cities/cities.csv",
        "legend": "hsl8",
        "roads": "ignore",
        "tile_size": 32,
        "split": "spatial",
        "block_km": 1,
    },
}
"""Flags of the builds; sources are files of the input folder."""

SOURCES = ("source", "cities", "lists")

PATCHES_FLAGS = (
    *("--model=compact", "--batch_size=32", "--epochs=3", "--progressive_sizes=32", "--progressive_epochs=1"),
    *("--cutout=8", "--ema=0.5", "--label_smoothing=0.05", "--checkpoint_steps=1", "--seed=3", "--deterministic"),
)

TILES_FLAGS = (
    *("--model=deeplab_resnet14", "--batch_size=4", "--epochs=2", "--steps_per_epoch=6", "--crop=48", "--jitter=0.1"),
    *("--loss=cross_entropy+dice", "--class_weights=median_frequency", "--optimizer=muon", "--learning_rate=0.02"),
    *("--schedule=poly", "--scale_min=0.75", "--scale_max=1.5", "--seed=3", "--deterministic"),
)

TILES_EVALUATIONS = {
    # The temperature of a run goes into its export, and these runs had none when the digests were frozen.
    "test": ("--nocalibrate",),
    "test_os8_flip": ("--nocalibrate", "--output_stride=8", "--flip"),
}

ASKED = 8
"""Number of test examples that exports and models predict directly."""

TRAINING_LIMIT = 300


class Failed(Exception):
    """A command ended otherwise than it should."""


class Stages:
    """Tells how long each stage takes."""

    def __init__(self):
        """Starts the clock."""
        self._begun = time.monotonic()

    def __call__(self, name, function, *arguments, **named):
        """Calls a function and prints a line with its seconds; returns what it returns."""
        begun = time.monotonic()
        found = function(*arguments, **named)
        now = time.monotonic()
        print(f"[{now - self._begun:6.1f} s] {name}: {now - begun:.1f} s", flush=True)
        return found


# How the program is run.


def _generator(name):
    """Returns a module of generated data, where the present layout has it or where the next one will."""
    for package in ("generated", "synthetic"):
        path = f"tfrecords_builder.{package}.{name}"
        try:
            return importlib.import_module(path)
        except ModuleNotFoundError as error:
            # A module that is there and misses another one is no reason to look elsewhere.
            if error.name not in (path, path.rpartition(".")[0]):
                raise
    raise ModuleNotFoundError(f"no module {name} in tfrecords_builder.generated or tfrecords_builder.synthetic")


def _words(command, *arguments, **flags):
    return [sys.executable, "-m", f"launch.{command}", *arguments, *(f"--{name}={it}" for name, it in flags.items())]


def _launch(command, *arguments, **flags):
    """Runs a command of the program.

    Raises:
        Failed: if it fails; with the end of what it said.
    """
    words = _words(command, *arguments, **flags)
    done = subprocess.run(words, cwd=ROOT, env=os.environ | VARIABLES, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr)[-3000:]
        raise Failed(f"{' '.join(words[1:])}\nended with exit code {done.returncode}:\n{said}")


# What is made: input, records and runs.


def make_input(folder):
    """Writes archives, cities and lists."""
    folder.mkdir(parents=True)
    spawning = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, spawning) as pool:
        for ended in [pool.submit(write, folder) for write in (_write_archives, _write_cities)]:
            ended.result()


def _write_archives(folder):
    archives = _generator("archives")
    for kind, count in PATCHES_PER_CLASS.items():
        archives.write_eurosat_archive(folder / f"{kind}.zip", kind=kind, patches_per_class=count, seed=1)
    _write_lists(folder / "rgb.zip", folder / "rgb")
    _write_ombria(folder / "ombria.zip")


def _write_cities(folder):
    _generator("cities").write_cities(folder / "cities", 4, size=240, seed=1)


def _write_lists(archive, prefix):
    with zipfile.ZipFile(archive) as opened:
        names = sorted(pathlib.PurePath(name).stem for name in opened.namelist() if name.endswith(".jpg"))
    for part, kept in (("train", (0, 1, 2)), ("val", (3,)), ("test", (4,))):
        lines = [name for number, name in enumerate(names) if number % 5 in kept]
        pathlib.Path(f"{prefix}-{part}.txt").write_text("\n".join(lines) + "\n")


def _write_ombria(path, train=8, test=4):
    """Writes images after floods and their masks in OMBRIA's layout; there is no generator of them."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(train + test):
            random = np.random.default_rng(number)
            mask = np.zeros((256, 256), np.uint8)
            mask[: 20 + 5 * number] = 255
            image = random.integers(40, 120, (256, 256, 3), dtype=np.uint8)
            image[mask == 255, 0] = random.integers(1, 20)
            image[-16:] = 0  # No data.
            part = f"OMBRIA/OmbriaS2/{'train' if number < train else 'test'}"
            shown = {"AFTER/S2_after": image, "BEFORE/S2_before": image[::-1], "MASK/S2_mask": mask}
            for name, pixels in shown.items():
                buffer = io.BytesIO()
                Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
                # A time of its own would make other bytes of the archive every day.
                archive.writestr(zipfile.ZipInfo(f"{part}/{name}_{number:04d}.png"), buffer.getvalue())


def build(kept, name):
    """Builds the records of one entry of `BUILDS`."""
    flags = {flag: kept / "input" / it if flag in SOURCES else it for flag, it in BUILDS[name].items()}
    _launch("build", output_dir=kept / "records" / name, num_workers=2, **flags)


def train(kept, name, records, flags):
    """Trains a run."""
    _launch("train", *flags, records_dir=kept / "records" / records, run_dir=kept / "runs" / name)


def train_and_stop(kept, name, records, flags):
    """Trains a run and asks it to end when it has saved its first step, so that there is one to resume.

    Raises:
        Failed: if it ends otherwise than by being asked.
    """
    run_dir = kept / "runs" / name
    words = _words("train", *flags, records_dir=kept / "records" / records, run_dir=run_dir)
    process = subprocess.Popen(words, cwd=ROOT, env=os.environ | VARIABLES, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + TRAINING_LIMIT
    try:
        while process.poll() is None and not list(run_dir.rglob("state.json")) and time.monotonic() < limit:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=TRAINING_LIMIT)
    finally:
        process.kill()
    if code != 128 + signal.SIGTERM:
        raise Failed(f"{' '.join(words[1:])}\nended with exit code {code} where it was asked to end")


# What is asked of runs, whoever trained them. Copies are asked: an evaluation adds to the run's folder.


def _copy_of_run(kept, work, name):
    copied = work / "runs" / name
    shutil.copytree(kept / "runs" / name, copied)
    return copied


def _write_images(kept, folder, count=20):
    """Unpacks some GeoTIFFs of 13 bands, which a network of JPEGs has scaled for it."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(kept / "input" / "ms.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".tif"))
        for name in names[:: max(1, len(names) // count)][:count]:
            (folder / pathlib.PurePath(name).name).write_bytes(archive.read(name))


def _evaluate(run_dir, records, output_dir, *arguments):
    _launch("evaluate", "--split=test", *arguments, run_dir=run_dir, records_dir=records, output_dir=output_dir)


def ask_patches(stages, kept, work, old):
    """Evaluates, predicts with and exports the run of patches."""
    records, run_dir = kept / "records" / "rgb_random", _copy_of_run(kept, work, "patches")
    stages("evaluate patches", _evaluate, run_dir, records, work / "evaluations" / "patches_test", "--force")
    images, table = work / "images", work / "predict.csv"
    _write_images(kept, images)
    stages("predict patches", _launch, "predict", run_dir=run_dir, images=images, output=table)
    by_old = work / "predict_kept_temperature.csv"
    if old:
        # The temperature that the other version has fitted and written.
        evaluated = work / "runs" / "patches_evaluated"
        shutil.copytree(kept / "asked" / "runs" / "patches", evaluated)
        stages("predict, kept temperature", _launch, "predict", run_dir=evaluated, images=images, output=by_old)
    else:
        shutil.copyfile(table, by_old)
    stages("export patches", _launch, "export", run_dir=run_dir, export_dir=work / "exports" / "patches")


def ask_tiles(stages, kept, work):
    """Evaluates and exports the run of tiles."""
    records, run_dir = kept / "records" / "tiles_city", _copy_of_run(kept, work, "tiles")
    for name, flags in TILES_EVALUATIONS.items():
        output = work / "evaluations" / f"tiles_{name}"
        stages(f"evaluate tiles, {name}", _evaluate, run_dir, records, output, *flags)
    stages("export tiles", _launch, "export", run_dir=run_dir, export_dir=work / "exports" / "tiles")


def resume_patches(stages, kept, work):
    """Goes on with the run that was stopped, which ends as the undisturbed one."""
    records, run_dir = kept / "records" / "rgb_random", _copy_of_run(kept, work, "patches_stopped")
    stages("resume patches", _launch, "train", "--resume", *PATCHES_FLAGS, records_dir=records, run_dir=run_dir)


# The two halves run at the same time, and take about as long as each other.


def one_half(stages, kept, work, old):
    """Makes what is of patches, and asks it."""
    if not old:
        for name in ("rgb_lists", "ms_blocks", "ms_fold_beam"):
            stages(f"build {name}", build, kept, name)
        stages("train patches", train, kept, "patches", "rgb_random", PATCHES_FLAGS)
        stages("train patches, stopped", train_and_stop, kept, "patches_stopped", "rgb_random", PATCHES_FLAGS)
    ask_patches(stages, kept, work, old)


def other_half(stages, kept, work, old):
    """Makes what is of tiles, and asks it; then goes on with the stopped run of patches."""
    if not old:
        for name in ("tiles_city", "tiles_blocks"):
            stages(f"build {name}", build, kept, name)
        stages("train tiles", train, kept, "tiles", "tiles_city", TILES_FLAGS)
    ask_tiles(stages, kept, work)
    resume_patches(stages, kept, work)


def _side_by_side(*calls):
    """Calls functions at the same time, and waits for all before it tells of the first one's failure."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(function, *arguments) for function, *arguments in calls]
    for ended in running:
        ended.result()


# What is digested.


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _of_json(value):
    return _sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def _of_array(array):
    """Returns a digest of an array's type, shape and numbers."""
    array = np.ascontiguousarray(array)
    return _sha256(f"{array.dtype} {array.shape}".encode() + (array.tobytes() if array.dtype != object else b""))


def of_input(folder):
    """Digests archives and lists, so that another input is not taken for another computation."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    whole = {path.relative_to(folder).as_posix(): _sha256(path.read_bytes()) for path in paths}
    found = {name: digest for name, digest in whole.items() if "/" not in name}
    # Of the cities, one digest: a product has dozens of files.
    return found | {"cities": _of_json({name: digest for name, digest in whole.items() if "/" in name})}


def of_records(folder):
    """Digests the shards' bytes, the card by its fields, and TensorFlow Datasets' files."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name == "card.json":
            card = {name: it for name, it in json.loads(path.read_bytes()).items() if name not in CARD_LEFT_OUT}
            found |= {f"card.{name}": _of_json(it) for name, it in card.items()}
        elif path.is_file() and not path.name.startswith("."):  # The list of what the command wrote is hidden.
            found[path.name] = _sha256(path.read_bytes())
    return found


def of_run(folder, images):
    """Digests a run's weights, history and choice, and what its model answers."""
    import keras

    import eo_keras.models  # noqa: F401  (registers the layers)

    model = keras.saving.load_model(folder / "model.keras", compile=False)
    found = {"parameters": repr(model.count_params())}
    for layer in sorted(model.layers, key=lambda layer: layer.name):
        for place, weight in enumerate(layer.weights):
            found[f"weights.{layer.name}.{place}"] = _of_array(keras.ops.convert_to_numpy(weight))
    answers = model(images, training=False)
    answers = answers if isinstance(answers, dict) else {"answers": answers}
    found |= {f"model.{name}": _of_array(keras.ops.convert_to_numpy(it)) for name, it in answers.items()}
    header, *rows = csv.reader(io.StringIO((folder / "history.csv").read_text()))
    for name, column in zip(header, zip(*rows, strict=True), strict=True):
        if name not in HISTORY_LEFT_OUT:
            found[f"history.{name}"] = ",".join(column)
    card = json.loads((folder / "model_card.json").read_bytes())
    for name in ("epoch", "metric", "value"):
        found[f"selection.{name}"] = repr(card["selection"][name])
    for name in ("bands", "dtype", "normalisation", "data_fingerprint", "legend", "reflectance", "patch_size"):
        found[f"card.{name}"] = _of_json(card[name])
    return found


def of_table(path, first):
    """Digests a table of answers by the places of its columns, for their names may change.

    Args:
        path: the CSV file.
        first: which column the probabilities of the classes begin with.
    """
    _, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
    # A path differs with the folder that it was asked in.
    rows = [[pathlib.PurePath(row[0]).name, *row[1:]] for row in rows]
    found = {f"column_{place}": _of_json([row[place] for row in rows]) for place in range(first)}
    probabilities = np.array([row[first:] for row in rows], np.float32)
    found["rows"] = repr(len(rows))
    return found | {"probabilities": _of_array(probabilities), "classes": _of_array(probabilities.argmax(1))}


_CANONICAL = {
    "macro_iou": "miou",
    "expected_calibration_error": "ece",
    "accuracy_low": "accuracy.low",
    "accuracy_high": "accuracy.high",
    "averaged_classes": "macro_classes",
    "boundary_tolerance": "tolerance",
}
_INTERVALS = {"precision_interval": "precision", "recall_interval": "recall"}
_DETAILS = ("averaged_classes", "images", "boundary_tolerance")
_PROBABILITY_SCORES = ("negative_log_likelihood", "brier_score")
_NO_SCORES = ("interval", "bootstrap_resamples", "bootstrap_seed", "resampled", "method", "name")


def of_metrics(metrics):
    """Returns the numbers of an evaluation's metrics.json, as repr by names that do not depend on its layout.

    Layout 1 has no `schema`. Layout 2 holds more than layout 1, which is left out: intervals of F1 and of kappa of
    patches, and their probabilities' scores beside those in `calibration`.
    """
    found, ends = {}, {}

    def add(name, value):
        head, _, last = name.rpartition(".")
        name = f"{head}.{_CANONICAL.get(last, last)}".lstrip(".")
        if isinstance(value, dict) and "value" in value:
            found[name] = repr(value["value"])
            ends.update({f"{name}.{end}": value.get(end) for end in ("low", "high")})
        elif last in _INTERVALS:
            name = f"{head}.{_INTERVALS[last]}"
            ends.update(zip((f"{name}.low", f"{name}.high"), value or (), strict=bool(value)))
        elif not isinstance(value, (dict, list)) and last not in _NO_SCORES:
            found[name] = repr(value)

    scores = metrics["scores"]
    if metrics.get("schema", 1) == 1:
        classes, confusion, reliability = scores["classes"], scores["confusion"], scores.get("reliability")
    else:
        confusion, reliability = metrics["confusion"], metrics.get("reliability")
        classes = [{"name": name} | values for name, values in metrics["by_class"].items()]
        details = {name: metrics["details"][name] for name in _DETAILS if name in metrics["details"]}
        scores = scores | details | {"count" if metrics["unit"] == "examples" else "pixels": metrics["count"]}
        if metrics["unit"] == "examples":
            scores = {name: value for name, value in scores.items() if name not in _PROBABILITY_SCORES}
            scores |= {
                name: value and value["value"] for name, value in scores.items() if name in ("macro_f1", "kappa")
            }
            classes = [one | {"f1": one["f1"] and one["f1"]["value"]} for one in classes]
    for name, value in scores.items():
        add(name, value)
    for one in classes:
        for name, value in one.items():
            add(f"class.{one['name']}.{name}", value)
    found["confusion"] = json.dumps(confusion)
    if reliability:
        found["reliability"] = _of_json(reliability)
    if "cross_entropy" in metrics:
        add("cross_entropy", metrics["cross_entropy"])
    if "negative_log_likelihood" in found:
        found["cross_entropy"] = found.pop("negative_log_likelihood")
    calibration = metrics.get("calibration") or {}
    if "temperature" in calibration:
        add("temperature", calibration["temperature"])
    for part in ("split", "validation"):
        for when, values in (calibration.get(part) or {}).items():
            for name, value in (values or {}).items():
                add(f"calibration.{part}.{when}.{name}", value)
    if metrics.get("selective"):
        found["selective"] = _of_json(metrics["selective"])
    # Where there is no interval, one layout leaves it out and another says null.
    return found | {name: repr(number) for name, number in ends.items() if number is not None}


def of_export(folder, images):
    """Digests what an export's signature answers about images."""
    import tensorflow as tf

    serve = tf.saved_model.load(str(folder / "1")).signatures["serving_default"]
    found = {name: it.numpy() for name, it in serve(image=tf.constant(images)).items()}
    # Names of classes are objects, whose bytes are addresses.
    found = {name: np.array(it.tolist()) if it.dtype == object else it for name, it in found.items()}
    return {name: _of_array(it) for name, it in sorted(found.items())}


def _images_of(records):
    """Returns the first images of the split test, as stored numbers."""
    import tensorflow as tf

    card = json.loads((records / "card.json").read_bytes())
    shape = (card["patch_size"], card["patch_size"], len(card["bands"]))
    found = []
    for data in tf.data.TFRecordDataset(sorted(map(str, records.glob("*-test.tfrecord-*")))).take(ASKED):
        (image,) = tf.train.Example.FromString(data.numpy()).features.feature["image"].bytes_list.value
        if card["encoding"] == "jpeg":
            found.append(tf.io.decode_jpeg(image).numpy())
        else:
            found.append(np.frombuffer(image, np.dtype(card["dtype"]).newbyteorder("<")).reshape(shape))
    return np.stack(found).astype(card["dtype"])


def _import_tensorflow():
    os.environ.update(VARIABLES)
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def digest(stages, kept, work):
    """Returns the digests of all that lies in the two folders, by name."""
    parts = {"input": of_input(kept / "input")}
    parts |= {f"records.{name}": of_records(kept / "records" / name) for name in BUILDS}
    stages("import TensorFlow", _import_tensorflow)
    for name, records in (("patches", "rgb_random"), ("tiles", "tiles_city")):
        images = _images_of(kept / "records" / records)
        parts[f"run.{name}"] = of_run(kept / "runs" / name, images)
        parts[f"export.{name}"] = of_export(work / "exports" / name, images)
        if name == "patches":
            parts["run.patches_resumed"] = of_run(work / "runs" / "patches_stopped", images)
    for folder in sorted((work / "evaluations").iterdir()):
        parts[f"metrics.{folder.name}"] = of_metrics(json.loads((folder / "metrics.json").read_bytes()))
        for path in (folder / name for name in PREDICTIONS_NAMES if (folder / name).is_file()):
            # key, true, predicted, probability, then those of the classes.
            parts[f"answers.{folder.name}"] = of_table(path, 4)
    for name in ("predict", "predict_kept_temperature"):
        # image, class_id, class_name, probability, then those of the classes.
        parts[name] = of_table(work / f"{name}.csv", 4)
    return {f"{part}.{name}": it for part, digests in parts.items() for name, it in digests.items()} | _environment()


def _environment():
    import keras
    import tensorflow as tf

    processor = platform.processor() or platform.machine()
    if (info := pathlib.Path("/proc/cpuinfo")).is_file():
        lines = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = lines[0] if lines else processor
    versions = {"python": platform.python_version(), "numpy": np.__version__, "tensorflow": tf.__version__}
    found = versions | {"keras": keras.__version__, "processor": processor}
    return {f"{ENVIRONMENT}{name}": it for name, it in found.items()}


# The two things that can be asked for.


def freeze(out, keep=None, old=None):
    """Makes everything, or asks what is kept in `old`, and writes the digests."""
    if keep and keep.exists() and any(keep.iterdir()):
        raise Failed(f"{keep} is not empty")
    stages = Stages()
    with tempfile.TemporaryDirectory(prefix="oracle-") as temporary:
        kept = (old or keep or pathlib.Path(temporary) / "kept").resolve()
        # Nothing is written into a folder that is asked.
        work = pathlib.Path(temporary) / "asked" if old else kept / "asked"
        if not old:
            stages("generate", make_input, kept / "input")
            first = ("rgb_random", "ombria_published")
            _side_by_side(*((stages, f"build {name}", build, kept, name) for name in first))
        _side_by_side(*((half, stages, kept, work, old is not None) for half in (one_half, other_half)))
        found = stages("digest", digest, stages, kept, work)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")
    print(f"{out}: {len(found)} digests")


def compare(old, new):
    """Prints a line a difference, and returns how many there are."""
    old, new = (json.loads(path.read_text()) for path in (old, new))
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    # What only the newer version says contradicts nothing.
    differing = [name for name in names if not name.startswith(ENVIRONMENT) and name in old]
    for name in names:
        line = f"{name}: {old.get(name, 'missing')} -> {new.get(name, 'missing')}"
        print(line if name in differing else f"note: {line}", file=sys.stdout if name in differing else sys.stderr)
    return len(differing)


def main():
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--keep", type=pathlib.Path, help="new folder for input, records, runs and answers")
    parser.add_argument("--old", type=pathlib.Path, help="such a folder by another version, whose runs are asked")
    parser.add_argument("--compare", type=pathlib.Path, nargs=2, metavar=("OLD", "NEW"), help="two results")
    given = parser.parse_args()
    if given.compare:
        return int(compare(*given.compare) > 0)
    if not given.out or (given.keep and given.old):
        parser.error("give --out, with --keep or --old or neither; or --compare")
    try:
        freeze(given.out, given.keep, given.old)
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
