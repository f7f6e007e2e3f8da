"""From the gateway's text to OTLP requests."""
