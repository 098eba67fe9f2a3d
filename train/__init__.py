"""Training: models, data, losses, fitting, evaluation and export."""
