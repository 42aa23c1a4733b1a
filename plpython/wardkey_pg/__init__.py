"""The part of wardkey that runs inside PostgreSQL, behind the PL/Python functions of extension "wardkey".

Everything here but ``_host`` runs without PostgreSQL. It imports the standard library and ``cryptography`` only.
"""

__version__ = "0.1.0"
