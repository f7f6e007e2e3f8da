"""OTLP over HTTP: messages, requests, the endpoint and the client. Does not import Airflow."""
