"""The pages that people look at, and the HTTP API that other programs call, on one store."""
