"""Celery, Redis and processes."""
