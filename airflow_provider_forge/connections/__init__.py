"""What Connections describe: clients, endpoints, stores. None of it imports Airflow."""
