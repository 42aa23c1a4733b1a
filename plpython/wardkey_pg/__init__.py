"""The part of wardkey that runs inside PostgreSQL, behind the PL/Python functions of extension "wardkey".

Everything here but ``_host`` and ``entry`` runs without PostgreSQL. It imports the standard library and
``cryptography`` only, and little of both: every backend pays for it (records are NamedTuples because
``dataclasses`` alone costs 12 ms, ``socket`` and ``uuid`` 3 ms each).
"""

import gc
import os
import sys

if "plpy" in sys.modules:  # in a backend
    gc.disable()  # until ``entry`` is there: it would look again and again through what stays
    os.environ.setdefault("CRYPTOGRAPHY_OPENSSL_NO_LEGACY", "1")  # ciphers that nobody uses, 0.3 ms

__version__ = "0.3.0"
