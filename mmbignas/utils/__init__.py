"""The ground: one idea per file, used by all rooms."""
