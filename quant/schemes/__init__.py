"""How a layer is written in fewer bits."""
