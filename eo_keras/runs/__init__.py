"""Run folders: model card, model, history and figures of a training run."""
