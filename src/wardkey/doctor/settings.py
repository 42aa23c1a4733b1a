"""Settings of the server that would leak into its log, or let somebody in more easily than need be."""

from __future__ import annotations

from collections.abc import Iterator

from ._check import Check, Problem, Server

__all__ = ["CHECKS", "LOG_SETTINGS"]

LOG_SETTINGS = {
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
    "debug_print_parse": "off",
    "debug_print_rewritten": "off",
    "debug_print_plan": "off",
}
"""With any other value, statements, parameters or rows reach the server's log."""

_WANTED = {"password_encryption": "scram-sha-256", "event_triggers": "on", "allow_system_table_mods": "off"}
_LOADED = ("shared_preload_libraries", "session_preload_libraries", "local_preload_libraries")
_TELLTALES = {
    "auto_explain": "writes statements and their parameters into the server's log",
    "pg_stat_statements": "keeps the texts of statements, with the literals of those it cannot normalise",
}
_WEAK_METHODS = {
    "trust": "lets anybody in",
    "password": "sends passwords in clear",
    "ident": "believes the client's host",
    "md5": "keeps MD5 possible",
}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", ""})


def _log_settings(server: Server) -> Iterator[Problem]:
    return _settings(server, LOG_SETTINGS)


def _other_settings(server: Server) -> Iterator[Problem]:
    return _settings(server, _WANTED)


def _settings(server: Server, wanted: dict[str, str]) -> Iterator[Problem]:
    rows = server.rows(
        "select name, setting from pg_settings where name = any(%s) order by name", list(wanted)
    )
    for name, value in rows:
        if value != wanted[name]:
            yield Problem(f"setting {name}", f"is {value}", _fix(server, name, wanted[name]))


def _fix(server: Server, name: str, value: str) -> str:
    """Return what gives a setting its value back, where it got the other one from."""
    source, database, user = server.rows(
        "select source, quote_ident(current_database()), quote_ident(current_user)"
        " from pg_settings where name = %s",
        name,
    )[0]
    match source:
        case "database":
            return f"alter database {database} reset {name};"
        case "user":
            return f"alter role {user} reset {name};"
        case "database user":
            return f"alter role {user} in database {database} reset {name};"
        case "command line" | "environment variable" | "client" | "session":
            return f"take {name} out of the {source}, then: alter system set {name} = '{value}';"
    return f"alter system set {name} = '{value}'; select pg_reload_conf();"


def _libraries(server: Server) -> Iterator[Problem]:
    for name in _LOADED:
        loaded = [item.strip(' "') for item in server.value("select current_setting(%s)", name).split(",")]
        for library, harm in _TELLTALES.items():
            if any(item.rpartition("/")[2] == library for item in loaded):
                kept = ", ".join(item for item in loaded if item.rpartition("/")[2] != library)
                yield Problem(f"setting {name}", f"loads {library}: it {harm}", _fix(server, name, kept))


def _encryption(server: Server) -> Iterator[Problem]:
    addresses = {
        item.strip() for item in server.value("select current_setting('listen_addresses')").split(",")
    }
    beyond = sorted(addresses - _LOOPBACK)
    if beyond and server.value("select current_setting('ssl')") != "on":
        yield Problem(
            "setting ssl",
            f"is off, and the server listens on {', '.join(beyond)}",
            "put server.crt and server.key into the data directory, then: alter system set ssl = on;"
            " select pg_reload_conf();",
        )


def _authentication(server: Server) -> Iterator[Problem]:
    rows = server.rows(
        "select line_number, auth_method, type, error, current_setting('hba_file')"
        " from pg_hba_file_rules order by line_number"
    )
    for line, method, kind, error, file in rows:
        if error is not None or method in _WEAK_METHODS:
            text = "cannot be read" if error is not None else f"{kind}, {method}: {_WEAK_METHODS[method]}"
            yield Problem(
                f"{file}:{line}", text, "use scram-sha-256 in that line, then: select pg_reload_conf();"
            )


def _prepared_transactions(server: Server) -> Iterator[Problem]:
    value = server.value("select current_setting('max_prepared_transactions')")
    if value != "0":
        yield Problem(
            "setting max_prepared_transactions",
            f"is {value}: a tenant may leave transactions behind, with their locks",
            "alter system set max_prepared_transactions = 0; then restart the server",
        )


def _checksums(server: Server) -> Iterator[Problem]:
    if server.value("select current_setting('data_checksums')") != "on":
        directory = server.value("select current_setting('data_directory')")
        yield Problem(
            "data checksums",
            "are off: silent corruption of the disk shows only as ciphertext that does not open",
            f"stop the server, then: pg_checksums --enable --pgdata {directory}",
        )


CHECKS = (
    Check("log-keeps-quiet", "no statement, parameter or row reaches the server's log", _log_settings),
    Check("no-telltale-library", "no loaded library keeps or logs statements", _libraries, "warn"),
    Check("settings-safe", "passwords are kept as SCRAM, event triggers fire", _other_settings),
    Check("encrypted", "connections from other hosts are encrypted", _encryption),
    Check(
        "authenticated", "every line of pg_hba.conf asks for a proof that is worth something", _authentication
    ),
    Check("no-two-phase", "tenants cannot prepare transactions", _prepared_transactions, "warn"),
    Check("checksums", "data pages have checksums", _checksums, "warn"),
)
