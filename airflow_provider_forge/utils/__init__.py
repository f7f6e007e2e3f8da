"""Helpers that use Airflow, shared by hooks, operators and commands."""
