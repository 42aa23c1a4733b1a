"""The life of keys, as the orchestrator leads it: the database's superuser who may also manage KEKs."""
