"""Tasks: what is predicted, how it is learned, scored and shown. No other package asks which task it is."""

from eo_keras.tasks.registry import TASKS, get, of

__all__ = ["TASKS", "get", "of"]
