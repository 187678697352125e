"""How numbers shrink: schemes, per-expert scales, tuning, the report of what it cost."""
