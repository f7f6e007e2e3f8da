"""What is fast and what is not: the payload path (`make bench`) and a backfill (`make bench-backfill`)."""
