"""The live demo; a terminal for now. Never imports torch."""
