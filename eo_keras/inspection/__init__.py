"""Inspection of a records folder: scan of the records, leakage between splits, HTML page."""
