"""Predictions for image files, and export as SavedModel."""
