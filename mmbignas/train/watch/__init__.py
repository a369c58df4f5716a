"""Watching a training: losses, collapse, ranks that drift apart."""
