"""The configuration files of the embedded PostgreSQL.

They are written again at each start. Own settings go into ``local.conf`` beside them, which comes last and
begins with what initdb found out about the machine.

What may reach the server log: no literal, no parameter, no key. In the order of severity for the log, ERROR
comes before LOG, so ``log_min_messages = log`` keeps errors (whose texts can hold literals) out, and start,
stop, crashes and refused logins in; ``terse`` leaves out DETAIL, where a crash shows the query and
debug_print_plan its constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..daemon.programs import OsUser

__all__ = ["hba", "ident", "postgresql"]

_SETTINGS = """\
# Written by wardkey at each start. Own settings: local.conf in this directory.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{socket_directory}'
max_connections = 200
password_encryption = scram-sha-256
cluster_name = 'wardkey'

{libraries}shared_buffers = 256MB
max_locks_per_transaction = 256      # 1,000 tenants times their tables in one DDL statement
max_prepared_transactions = 0        # nobody finishes another one's transaction
wal_level = logical
jit = off                            # compiling costs more than our short queries
timezone = 'UTC'
lc_messages = 'C'

log_destination = stderr
logging_collector = off
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %u@%d '
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_statement = none
log_duration = off
log_min_duration_statement = -1
log_min_duration_sample = -1
log_transaction_sample_rate = 0
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_lock_waits = off
log_recovery_conflict_waits = off
log_temp_files = -1
log_replication_commands = off
log_parser_stats = off
log_planner_stats = off
log_executor_stats = off
log_statement_stats = off
track_activity_query_size = 256

include_if_exists = 'local.conf'
"""

_HBA = """\
# Written by wardkey at each start. Superuser and services come through the socket only,
# known by their OS users; everybody else gives a password. Nothing is trusted. Replication is logical only.
local  all          postgres,ward_scribe,ward_publisher,ward_invalidator,ward_metrics  peer map=wardkey
local  replication  postgres                peer map=wardkey
local  replication  all                     reject
local  all          all                     scram-sha-256
host   all          postgres,ward_scribe,ward_publisher,ward_invalidator,ward_metrics  127.0.0.1/32  reject
host   all          all       127.0.0.1/32  scram-sha-256
"""


# Maps PL/Python once for all backends: 2 ms less for the first login of each. PostgreSQL 18 would start
# Python itself in the postmaster, whose children would share its state.
_LIBRARIES = "shared_preload_libraries = 'plpgsql,plpython3'\n"


def postgresql(port: int, socket_directory: Path, major: int) -> str:
    """Return the text of postgresql.conf for PostgreSQL ``major``."""
    quoted = str(socket_directory).replace("'", "''")
    # A comma or blank would part the list of directories; inside double quotes it does not.
    libraries = _LIBRARIES if major < 18 else ""
    return _SETTINGS.format(port=port, socket_directory=f'"{quoted}"', libraries=libraries)


def hba() -> str:
    """Return the text of pg_hba.conf."""
    return _HBA


def ident(roles: Mapping[str, Iterable[OsUser]]) -> str:
    """Return the text of pg_ident.conf: which OS users may be which role."""
    return "".join(
        f'wardkey  "{name}"  {role}\n'
        for role, users in roles.items()
        for name in dict.fromkeys(user.name for user in users)
    )
