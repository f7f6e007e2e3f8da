"""Which windows are delivered, which are missing, and what is done about it."""
