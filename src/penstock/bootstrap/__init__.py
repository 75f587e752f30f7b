"""The composition root: the one place that names concrete adapters, and only by entry-point name."""
