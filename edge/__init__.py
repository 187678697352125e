"""What ships: ``edge.model`` (torch reference), ``edge.export`` (graphs), ``edge.runtime`` (the recognizer)."""
