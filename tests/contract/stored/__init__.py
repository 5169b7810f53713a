"""Databases as earlier versions left them, as SQL text: every later migration has to get along with their rows."""
