"""The source of the Grafana dashboards in `deploy/grafana/dashboards`.

`python -m dashboards` writes them anew. `promql` knows how to ask Prometheus for delta points, `panels` how a
panel looks; every other module is one dashboard.
"""
