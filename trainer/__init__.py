"""Makes LoRA adapters that the worker can trust."""
