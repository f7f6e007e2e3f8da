"""The command line: `forge-metrics …`, `airflow forge …` and `python -m airflow_provider_forge …`."""
