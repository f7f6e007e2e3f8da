"""Hooks: an Airflow Connection made into a client."""
