"""Text in, probabilities out: shared by worker and trainer, knows no service."""
