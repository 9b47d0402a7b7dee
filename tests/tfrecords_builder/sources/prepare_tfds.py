"""Prepares small data sets with TensorFlow Datasets; a program of its own, since it imports TensorFlow.

python prepare_tfds.py FOLDER: writes the data sets below into FOLDER. Example `n` of each follows from `n`.
"""

import sys

import numpy as np

COUNTS = {"train": 9, "test": 6}


def pixels_of(number, bands=3, dtype=np.uint8):
    """Image (32, 32, bands) of a number; the last rows hold no data."""
    image = np.random.default_rng(number).integers(1, 200, (32, 32, bands))
    image[-4:] = 0
    return image.astype(dtype)


def mask_of(number):
    """Mask (32, 32, 1) of classes 0 and 1, with some pixels of none."""
    mask = np.zeros((32, 32, 1), np.uint8)
    mask[: 4 + number] = 1
    mask[:, 0] = 255
    return mask


def main():
    import tensorflow_datasets as tfds

    def prepare(name, features, example, keys):
        def info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=keys, citation="Nobody"
            )

        def generate(self, numbers):
            for number in numbers:
                yield number, example(number)

        def split_generators(self, dl_manager):
            train = COUNTS["train"]
            numbers = {"train": range(train), "test": range(train, train + COUNTS["test"])}
            return {split: self._generate_examples(found) for split, found in numbers.items()}

        content = {"VERSION": tfds.core.Version("1.2.0"), "_info": info, "_generate_examples": generate}
        content |= {"_split_generators": split_generators, "__module__": __name__}
        kind = type(name, (tfds.core.GeneratorBasedBuilder,), content)
        kind(data_dir=sys.argv[1]).download_and_prepare(
            download_config=tfds.download.DownloadConfig(num_shards=2, try_download_gcs=False)
        )

    names = ["water", "forest", "town"]
    label = tfds.features.ClassLabel(names=names)
    prepare(
        "Coloured",
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": label,
            "filename": tfds.features.Text(),
        },
        lambda n: {"image": pixels_of(n), "label": n % 3, "filename": f"{names[n % 3]}/image_{n}.png"},
        ("image", "label"),
    )
    for encoding in ("none", "bytes", "zlib"):
        prepare(
            f"Bands{encoding.title()}",
            {
                "sentinel2": tfds.features.Tensor(shape=(32, 32, 4), dtype=np.float32, encoding=encoding),
                "label": label,
            },
            lambda n: {"sentinel2": pixels_of(n, 4, np.float32) * 40, "label": n % 3},
            ("sentinel2", "label"),
        )
    prepare(
        "Masked",
        {
            "picture": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
            "mask": tfds.features.LabeledImage(labels=["dry", "wet"], shape=(32, 32, 1)),
        },
        lambda n: {"picture": pixels_of(n), "mask": mask_of(n)},
        ("picture", "mask"),
    )


if __name__ == "__main__":
    main()
