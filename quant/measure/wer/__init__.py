"""Word error rates of one or two bundles, with intervals of the difference."""
