"""One set of metrics for all systems."""
