"""Footprints of buildings: images with masks or polygons, and with heights where there are some."""
