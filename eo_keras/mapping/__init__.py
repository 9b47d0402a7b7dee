"""Mapping: whole scenes to class maps, and what is made and measured of maps."""
