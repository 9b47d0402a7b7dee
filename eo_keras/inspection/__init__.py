"""Inspection of a records folder: survey, page and leakage between splits."""
