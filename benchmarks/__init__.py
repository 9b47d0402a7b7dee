"""Measurements behind the figures of docs/results.md; each command prints a table and writes JSON."""
