"""The sections of the page, each from the part of the report that it shows."""
