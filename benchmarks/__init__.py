"""Benchmarks of the payload path (`make bench`) and of a backfill (`make bench-backfill`)."""
