"""The archive of raw windows: writing it, reading it, replaying from it, and verifying it."""
