"""The command line: `airflow forge …` and `python -m airflow_provider_forge …`."""
