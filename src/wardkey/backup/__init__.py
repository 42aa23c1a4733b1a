"""Backups that can be restored, and the drill that proves it.

``sealed``: the state of keeper and orchestrator as one age file · ``making``: database and state into a
directory · ``restoring``: a home out of it · ``proving``: every tenant opens
"""
