"""The page that says what quantizing cost, and whether to ship."""
