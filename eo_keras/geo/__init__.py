"""Georeferenced data: grids, raster files, scenes, products and polygons."""
