"""The live demo, in a window or a terminal. Never imports torch."""
