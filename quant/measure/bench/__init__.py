"""Latency and memory of two bundles, interleaved."""
