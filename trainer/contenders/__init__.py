"""What `loracle compare` compares: a module per kind of model, each measured in a process of its own."""
