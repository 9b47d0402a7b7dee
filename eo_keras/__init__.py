"""EO-Keras: land use and land cover from Sentinel-2 with TensorFlow and Keras 3.

The package imports neither TensorFlow nor Keras by itself; the modules that need them
(`data`, `models`, `training`, `evaluation`, `serving`) import them when they are used.
"""

__version__ = "0.1.0"
