"""Helpers that know Airflow, shared by hooks, operators and commands."""
