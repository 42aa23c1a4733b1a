"""The part of wardkey that runs inside PostgreSQL, behind the PL/Python functions of extension "wardkey".

Everything here but ``_host`` and ``entry`` runs without PostgreSQL. It imports the standard library and
``cryptography`` only, and little of both: every backend pays for it (records are NamedTuples because
``dataclasses`` alone costs 12 ms, ``socket`` and ``uuid`` 3 ms each).
"""

import gc
import sys

# In a backend, until ``entry`` is there: the collector would look again and again through what stays.
if "plpy" in sys.modules:
    gc.disable()

__version__ = "0.3.0"
