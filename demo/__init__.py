"""The demo, and the local Airflow that it shares with the end-to-end tests."""
