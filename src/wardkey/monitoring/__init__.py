"""What is written for those who watch: Prometheus' configuration and alerts, Grafana's dashboards, a page.

Each alert stands in its runbook, ``docs/runbooks``; the numbers are those of ``wardkey.metrics``.
"""
