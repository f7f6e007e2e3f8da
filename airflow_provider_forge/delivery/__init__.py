"""Delivery: each point once, with a record of what the destination has acknowledged."""
