"""How fast the way from the gateway's bytes to the request is, and what it takes; `make bench` runs it."""
