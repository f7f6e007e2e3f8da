"""Delivery: sends each point once, and records the points that the destination has acknowledged."""
