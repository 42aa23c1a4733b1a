"""The scribe: reads the audit stream out of the WAL, seals it and signs checkpoints.

``replication`` reads a logical replication slot, ``pgoutput`` decodes what comes.
"""
