"""A theme a module; ``METRICS`` of each is found by ``wardkey.metrics.registry``."""
