"""Inference engines: what computes a bundle's graphs. A new engine is a file beside these, and a line in ``base``."""
