"""The source of the Grafana dashboards in `deploy/grafana/dashboards`.

`python -m dashboards` regenerates them. `promql` builds queries for delta points, `panels` the panels, and
`base` the parts that all dashboards share; `generate` encodes the dashboards. Every other module defines one
dashboard.
"""
