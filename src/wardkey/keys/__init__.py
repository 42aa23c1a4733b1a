"""The life of keys, as the orchestrator conducts it: rotated, rewrapped, retired, destroyed, and when.

``rotation`` and ``policy`` decide and do nothing; ``run``, ``rewrap`` and ``destroy`` do it, step by step, so
that whatever ends them, the next run goes on; ``kek`` manages KEKs; ``registry`` reads what is there.
``orchestrator`` is what the commands call.
"""
