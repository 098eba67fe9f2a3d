"""Compiled models: numpy and one vendor runtime. Knows no videos and no maps."""
