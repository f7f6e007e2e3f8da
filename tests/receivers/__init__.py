"""Receivers of OTLP that nobody here has written, for the end-to-end tests."""
