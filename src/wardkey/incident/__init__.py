"""Incidents: what was lost, whom the evidence says it reaches, what follows from it.

``losses`` and ``store`` keep what people say; ``scope`` counts the evidence, ``harbour`` judges keys,
``duties`` knows the clocks of notices, ``acts`` does what is to be done, ``report`` writes it all down. The
audit log and the keeper's files are evidence, read and never changed; what state an incident is in stands
in tables of its own.
"""
