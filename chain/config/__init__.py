"""`chain.yaml`: its models, the loader that reports all errors at once, and edits that keep comments."""
