"""Hooks: each makes a client from an Airflow Connection."""
