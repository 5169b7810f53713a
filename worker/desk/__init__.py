"""What the command line and the web offer alike: options as values, sentences, reports; no terminal, no HTTP."""
