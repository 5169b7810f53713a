"""Loracle: sentiment labels for review files, by a LoRA adapter, checked by an oracle."""

__version__ = "0.1.0"
