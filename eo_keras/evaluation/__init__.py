"""Evaluation of trained models: scores, reports and comparisons."""
