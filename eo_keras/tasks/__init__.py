"""Tasks: targets, loss, scores and figures. No other package compares names of tasks."""

from eo_keras.tasks.registry import TASKS, get, of, trained

__all__ = ["TASKS", "get", "of", "trained"]
