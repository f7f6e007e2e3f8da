"""The clients, endpoints and stores that Connections describe. Does not import Airflow."""
