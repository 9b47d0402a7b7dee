"""Sensors: their bands and the radiometry of their products."""
