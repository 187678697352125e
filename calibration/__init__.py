"""What the experts see: corpora, routing coverage, observers."""
