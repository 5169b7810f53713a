"""The trainer's commands, one per module; registered lazily in `loracle` and in `python -m trainer`."""
