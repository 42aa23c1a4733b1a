"""Metrics for Prometheus: numbers of each tenant, and of the platform, behind a token each.

``families/`` has what is measured, a theme a file, found by ``registry``; dashboards show each of them, see
``wardkey.monitoring.panels``. ``collecting`` reads the database, as ward_metrics, and the keeper's status;
``service`` decides who is answered what, ``http`` speaks HTTP. ``tokens`` makes and drops tokens. No label is
anything that a client chose: names of labels and their values stand in ``families``, and a tenant is known by
its path.
"""
