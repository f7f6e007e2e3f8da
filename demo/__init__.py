"""The demo, and the standalone Airflow that it shares with the end-to-end tests."""
