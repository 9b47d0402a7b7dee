r"""Compares an RGB run's answers about 13-band GeoTIFFs with its answers about the JPEGs of the same names.

The GeoTIFFs' B04, B03, B02 are scaled as the JPEGs were made. Only patches of the run's test split are asked about.
To tell scaling and compression apart, the scaled pixels are also compressed as the authors did, and asked about again.

Example: python -m benchmarks.radiometry_agreement --run_dir=runs/resnet50 --rgb_source=EuroSAT_RGB.zip \
    --ms_source=EuroSAT_MS.zip --output=docs/results/NAME/agreement.json
"""

import pathlib
import tempfile
import warnings

import numpy as np
from absl import flags

from eo_keras.core import files
from eo_keras.errors import SourceError
from eo_keras.geo import images as rasters
from eo_keras.sensors import radiometry, sentinel2
from launch import app, path_flags
from tfrecords_builder.sources import archive as archives
from tfrecords_builder.sources import eurosat

FLAGS = flags.FLAGS

path_flags.define_path("run_dir", None, "Run folder of a network trained on EuroSAT's JPEGs.", required=True)
path_flags.define_path("records_dir", None, "Its records folder. Default: the one that the run was trained on.")
path_flags.define_path("rgb_source", None, "EuroSAT_RGB: a zip or a folder.", required=True)
path_flags.define_path("ms_source", None, "EuroSAT_MS, or a part of it: a zip or a folder.", required=True)
path_flags.define_path("output", None, "JSON file to write.", required=True)


def _unpack(source: eurosat.EuroSAT, path: str, keys: set[str], folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Writes the images of some keys into a folder and returns their paths by key."""
    archive = archives.Archive(path)
    found = {}
    for item in source.items(archive):
        if item.key in keys:
            found[item.key] = folder / pathlib.PurePosixPath(item.member).name
            files.write_bytes(found[item.key], archive.read(item.member))
    return found


def _compress(geotiffs: dict[str, pathlib.Path], folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Makes JPEGs out of GeoTIFFs by the authors' recipe, and returns their paths by key."""
    import rasterio

    found = {}
    for key, path in geotiffs.items():
        image = rasters.read_image(path)
        pixels = image.pixels[..., [image.bands.index(name) for name in sentinel2.COMPOSITES["RGB"]]]
        grey = radiometry.stretch_like_eurosat_jpeg(pixels)
        height, width, count = grey.shape
        profile = {"driver": "JPEG", "width": width, "height": height, "count": count, "dtype": "uint8", "quality": 100}
        found[key] = folder / f"{key}.jpg"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # As the published ones are.
            with rasterio.open(found[key], "w", **profile) as dataset:
                dataset.write(np.moveaxis(grey, -1, 0))
    return found


def main() -> None:
    """Runs the measurement."""
    app.import_tensorflow_quietly()
    from eo_keras.data import pipeline as pipelines
    from eo_keras.metrics import classification as metrics
    from eo_keras.metrics.predictions import ClassPredictions
    from eo_keras.runs import folder as runs
    from eo_keras.serving import images as prediction

    run = runs.open_run(FLAGS.run_dir)
    records = pipelines.RecordDataset(FLAGS.records_dir or runs.find_records(run.folder, run.card))
    options = pipelines.PipelineOptions(batch_size=256, bands=run.card.bands)
    dataset = pipelines.evaluation(records, options, "test", with_keys=True)
    tested = {key.decode() for *_, keys in pipelines.reading(records, dataset) for key in keys.numpy() if key}
    if FLAGS.dry_run:
        print(f"dry run: would ask about those of {len(tested):,} test patches that {FLAGS.ms_source} holds")
        return
    with tempfile.TemporaryDirectory() as folder:
        geotiffs = _unpack(eurosat.MULTISPECTRAL, FLAGS.ms_source, tested, files.make_folder(f"{folder}/ms"))
        jpegs = _unpack(eurosat.RGB, FLAGS.rgb_source, set(geotiffs), files.make_folder(f"{folder}/rgb"))
        keys = sorted(set(geotiffs) & set(jpegs))
        if not keys:
            raise SourceError(FLAGS.ms_source, "it holds none of the run's test patches")
        of_geotiffs = prediction.predict_images(run, [geotiffs[key] for key in keys])
        of_jpegs = prediction.predict_images(run, [jpegs[key] for key in keys])
        compressed = _compress({key: geotiffs[key] for key in keys}, files.make_folder(f"{folder}/compressed"))
        of_compressed = prediction.predict_images(run, [compressed[key] for key in keys])
    names = run.card.legend.class_names
    labels = np.array([names.index(key.rpartition("_")[0]) for key in keys])
    differing = np.flatnonzero(of_geotiffs.classes != of_jpegs.classes)
    asked = ClassPredictions(labels, of_geotiffs.probabilities)
    result = {
        "patches": len(keys),
        "agreement": metrics.agreement(of_geotiffs.classes, of_jpegs.classes),
        "agreement_after_compression": metrics.agreement(of_compressed.classes, of_jpegs.classes),
        "accuracy_on_geotiffs": asked.accuracy(),
        "accuracy_on_jpegs": ClassPredictions(labels, of_jpegs.probabilities).accuracy(),
        "median_difference_of_top_probability": float(
            np.median(np.abs(of_geotiffs.probabilities.max(axis=1) - of_jpegs.probabilities.max(axis=1)))
        ),
        "differing": [
            {"key": keys[i], "geotiff": names[of_geotiffs.classes[i]], "jpeg": names[of_jpegs.classes[i]]}
            for i in differing
        ],
    }
    files.write_json(FLAGS.output, result)
    for name, value in result.items():
        print(f"{name:40} {value}")


if __name__ == "__main__":
    app.run(main)
