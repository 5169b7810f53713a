"""Who gives labels: every module here is one way to turn reviews into scores."""
