"""The export stage: a model as other programs open it."""
