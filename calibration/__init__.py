"""What the experts see: corpora, routing coverage, observers. Not built yet (issue 3)."""
