"""Coordinates of square images: from their transforms, or from a file of their centers.

Corners are kept by CRS: for each, the positions (n,) of its images and their corners (n, 4, 2) in that CRS.
"""

from __future__ import annotations

import collections
import csv
import hashlib
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from rasterio.warp import transform

from eo_keras.errors import SourceError
from eo_keras.geo.footprints import Footprints, transformed

Corners = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Positions and corners of images by CRS."""


def corners_from_transforms(crs: Sequence[str], transforms: np.ndarray, pixels: int) -> Corners:
    """Returns the corners of images by CRS.

    Args:
        crs: the N coordinate reference systems.
        transforms: float64 (N, 6), affine transforms (a, b, c, d, e, f) from pixel (column, row) to CRS.
        pixels: height and width of an image.
    """
    columns, rows = np.array([[0, 1, 1, 0], [0, 0, 1, 1]]) * pixels
    a, b, c, d, e, f = (column[:, None] for column in transforms.T)
    corners = np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=-1)
    positions = collections.defaultdict(list)
    for position, name in enumerate(crs):
        positions[name].append(position)
    return {name: (np.array(members), corners[members]) for name, members in positions.items()}


def read_coordinates(path: str | os.PathLike[str], keys: Sequence[str]) -> tuple[np.ndarray, str]:
    """Reads a CSV file with the header `patch,latitude,longitude`.

    Args:
        path: the file.
        keys: keys of the N images.

    Returns:
        Longitudes and latitudes float64 (N, 2) in degrees, in the order of the keys; and the file's MD5 checksum.

    Raises:
        SourceError: if the file cannot be read, lacks an image or names a place outside the globe.
    """
    by_key: dict[str, tuple[float, float]] = {}
    try:
        data = pathlib.Path(path).read_bytes()
        for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")):
            key = pathlib.PurePosixPath(row["patch"]).stem
            if key in by_key:
                raise ValueError(f"{key} has two rows")
            by_key[key] = (float(row["longitude"]), float(row["latitude"]))
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise SourceError(
            path,
            f"it cannot be read ({type(error).__name__}: {error})",
            "a CSV file with the header patch,latitude,longitude, in degrees, and one row a patch",
            "fix the file",
        ) from None
    if absent := [key for key in keys if key not in by_key]:
        raise SourceError(
            path,
            f"{len(absent):,} patches have no coordinates, first {', '.join(absent[:3])}",
            "coordinates of every patch of the source",
            "complete the file",
        )
    places = np.array([by_key[key] for key in keys], np.float64)
    if not (np.abs(places) <= (180, 90)).all():
        raise SourceError(path, "a place lies outside the globe", "degrees: latitude to 90, longitude to 180")
    return places, hashlib.md5(data, usedforsecurity=False).hexdigest()


def corners_from_centres(places: np.ndarray, size_m: float) -> Corners:
    """Returns a square around each center, along the grid of the UTM zone in which Sentinel-2 is delivered there."""
    longitude, latitude = places.T
    zones = (np.floor((longitude + 180) / 6).astype(int) % 60) + 1
    codes = np.where(latitude >= 0, 32600, 32700) + zones
    half = size_m / 2
    square = np.array([[-half, half], [half, half], [half, -half], [-half, -half]])
    corners = {}
    for code in np.unique(codes):
        positions = np.flatnonzero(codes == code)
        xs, ys = transform("EPSG:4326", f"EPSG:{code}", longitude[positions], latitude[positions])
        corners[f"EPSG:{code}"] = (positions, np.stack([xs, ys], axis=-1)[:, None, :] + square)
    return corners


def centres_of(corners: Corners) -> np.ndarray:
    """Returns longitude and latitude (N, 2) of the patches' centers in degrees, in the patches' order."""
    middles = {crs: (members, square.mean(axis=1, keepdims=True)) for crs, (members, square) in corners.items()}
    return reproject(middles, "EPSG:4326")[:, 0]


def footprints_of(corners: Corners, keys: Sequence[str]) -> Footprints:
    """Returns the patches' footprints on the ground, in their order.

    Args:
        corners: the corners by CRS, as `corners_from_transforms` returns them.
        keys: the patches' keys, for errors.

    Raises:
        SourceError: if a CRS and a transform name no place on Earth.
    """
    footprints = Footprints.of_degrees(reproject(corners, "EPSG:4326"))
    if (lost := np.flatnonzero(~footprints.known)).size:
        crs = next(crs for crs, (members, _) in corners.items() if lost[0] in members)
        raise SourceError(
            keys[lost[0]],
            f"its corners lie nowhere on Earth by its transform in {crs}, as those of {lost.size:,} of {len(keys):,}",
            "images whose coordinates name a place",
            "correct the files' coordinate reference system and transform, or leave these files out",
        )
    return footprints


def reproject(corners: Corners, crs: str) -> np.ndarray:
    """Returns all corners, or other points (N, points, 2), in one CRS, in the patches' order; NaN for none."""
    points = next(iter(corners.values()))[1].shape[1]
    projected = np.empty((sum(len(positions) for positions, _ in corners.values()), points, 2))
    for source, (positions, places) in corners.items():
        flat = places.reshape(-1, 2)
        projected[positions] = transformed(flat, source, crs).reshape(places.shape)
    return projected
