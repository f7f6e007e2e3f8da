"""What OTLP speaks: the model, conform, encodings, the client. No Airflow here."""
