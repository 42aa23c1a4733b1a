"""Functions of the built script are pinned, say whose rights they have, are named, labelled and explained."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pglast
from pglast import ast
from pglast.enums import GrantTargetType, ObjectType

from tests.support.extension_script import SQL, Function, dotted, functions, scripts, statements, type_name

# PL/Python whose text has no SQL: nothing in it is looked up by a path; pinning one costs time at every call.
_UNPINNED = {
    "ward_internal.request_cache_ticket": "as ward_internal.login",
    "ward_internal.begin_fill": "as ward_internal.login",
    "ward_internal.end_fill": "as ward_internal.login",
    "ward_internal.read_cached": "as ward_internal.login",
    "ward_internal.login": "queries of wardkey_pg name schemas; the gate ward.login pins the path",
    "ward_internal.login_session": "as ward_internal.login",
    "ward_internal.renew_session": "as ward_internal.login",
    "ward_internal.begin_write": "no SQL; hot: once a row written",
    "ward_internal.begin_entry": "hot: once a row written; the path is pinned by the trigger that calls it",
    "ward_internal.report_event": "its one query is of wardkey_pg and names schemas",
    "ward_internal.check_issuer": "no SQL",
    "ward_internal.report_to": "as ward_internal.report_event",
    "ward_internal.renew_keys": "as ward_internal.login",
    "ward_internal.look_up_now": "as ward_internal.login",
    "ward_internal.provision_key": "as ward_internal.login; the gate is ward.create_tenant",
    "ward_internal.ask_grant": "as ward_internal.login; the gates are those of break-glass",
    "ward_internal.derive_key": "as ward_internal.provision_key",
    "ward_internal.wrap_again": "as ward_internal.provision_key; the gate is ward_internal.rewrap_key",
    "ward_internal.seal": "no SQL; hot: once a row written",
    "ward_internal.make_tokens": "as ward_internal.seal",
    "ward_internal.find_query": "as ward.try_unseal; the path is pinned by the find functions that call it",
    "ward_internal.is_found": "no SQL; hot: once a row found",
    "ward.try_unseal": "hot: once a field read; its one query is of wardkey_pg and names schemas",
    "ward.try_unseal_text": "as ward.try_unseal",
    "ward.try_tenant_id": "hot: once a statement and table; as ward.try_unseal",
    "ward.require_context": "as ward.try_tenant_id",
    "ward.take_refusal": "no SQL",
    "ward.try_claims": "as ward.try_unseal",
    "ward.try_claim": "as ward.try_unseal",
    "ward.tenant_unless": "as ward.try_unseal",
    "ward.is_ruled": "no SQL; hot: while a query is planned",
    "ward.try_logout": "no SQL",
    "ward_internal.audit_lines": "cold; the path is pinned by ward.audit_export, its gate",
}
# Names that do not begin with a verb, with what they are.
_NOUNS = re.compile(
    r"^(admin_of_context|measure_fault|audit_(activity|acts|anomalies|coverage|entries|export|lines|model|months|of_key|reader|retention|row)"
    r"|audit_tenant|mask_fits|masked_null|sealed_column"
    r"|on_change|on_change_begin|on_name_change|missing_labels|model_faults|comments_on|grants_on"
    r"|shape_definition|view_statements|writers_are_behind"
    r"|audit_leaf|audit_writer|audit_writer_body|base_type|digest|entry_(columns|form|image|row)"
    r"|json_text|names_row|object_expression|rows_of|text_length|canonical|canonical_expression|face_checks|faces_are_behind"
    r"|face_expressions|face_query|face_trigger_body|hidden_columns|hidden_functions|hidden_relations|key_rows|leaf_name|leaf_schema|ward_schemas"
    r"|leaf_versions|leaves_of|lock_holders|made_names|master_id|model_columns|model_of|older_transactions|on_drop"
    r"|on_grant|region_of|relations_of|row_form"
    r"|face_constraints|grant_of_tenant"
    r"|size_functions"
    r"|claim|rule_claim|rule_condition|tenant_unless"
    r"|fresh_privileges|open_to_public|parent_query|quoted_name|role|row_expression|running_transactions"
    r"|face_tokens|finder_name|former_tokens|live_parities|other_name|unique_tokens"
    r"|model_searches|range_type|search_facts|search_normaliser"
    r"|face_sealing|face_trigger_parts|filled|seal_expression|sealed_bytes|shredding_facts"
    r"|key_operator|model_schemas|tenant_path"
    r"|currval|lastval|nextval|pg_get_serial_sequence|setval"  # as PostgreSQL calls them
    r"|sqlstate|subject|tenant_for_keys|tenant_id|tenant_of|unseal_expression|writer_name)$"
)
_VERBS = re.compile(
    r"^(accept|add|allow|approve|archive|ask|begin|bound|break|build|can|check|classify|close|compare|copy|create|cut|delegate|deny|derive|destroy|drop|end|fail|fence|find|finish|flush|follow|forget"
    r"|harden|hold|is|judge|name|narrow|register|restore|save"
    r"|lease|lock|log|login|logout|look|make|parse|pass|pause|plan|protect|open|provision|prune|publish|read|readmit|rebuild|refuse"
    r"|release|remove|renew|repair|report|request|require|reseal|resume|retire|review|revoke|rewrap|rotate|run|seal|set|share|suspend"
    r"|unprotect|unseal|unshare|upsert|take|tell|raise|try|wrap)(_|$)"
)
# Parameters that are part of the API as named arguments and read better without a prefix.
_PUBLIC_PARAMETERS = {
    ("ward.protect", "seal"),
    ("ward.protect", "audit"),
    ("ward.protect", "audit_reason"),
    ("ward.protect", "search"),
    ("ward.upsert", "key"),
    ("ward.upsert", "ignore"),
}
_STABLE_NAMES = re.compile(
    r"^((try_)?(tenant_id|unseal)|unseal_bytes|try_unseal_text|try_claims?|tenant_unless|is_ruled|require_context|subject|role|begin_write|audit_lines"
    r"|find_query|is_found|look_up_now|raise_refusal|raise_if_refused)$"
)


def each(test: Callable[[Function], None]) -> Callable[[], None]:
    """A test of all functions at once that names every one that fails."""

    def test_of_all() -> None:
        failed = []
        for function in functions().values():
            try:
                test(function)
            except AssertionError as error:
                failed.append(f"{function.signature}: {error}")
        assert not failed, "\n".join(failed)

    return test_of_all


def test_files_and_built_script_parse() -> None:
    for path in SQL.rglob("*.sql"):
        if "dist" not in path.parts:
            assert pglast.parse_sql(path.read_text())
    assert len(functions()) > 50
    assert all("@VERSION@" not in text for text in scripts().values())


def test_lines_have_at_most_120_columns() -> None:
    migrations = SQL.parent / "migrations"
    long = [
        f"{path.relative_to(SQL.parent)}:{number}"
        for path in (*SQL.rglob("*.sql"), *migrations.rglob("*.py"))
        if "dist" not in path.parts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 120
    ]
    assert not long


def test_no_function_is_made_twice() -> None:
    nodes = [node for node in statements() if isinstance(node, ast.CreateFunctionStmt)]
    assert len(nodes) == len(functions())


def test_the_script_pins_its_own_path() -> None:
    for text in scripts().values():
        body = re.sub(r"^\\echo.*$", "", text, flags=re.M).strip()
        assert body.startswith("set local search_path = pg_catalog, pg_temp;")


@each
def test_search_path_is_pinned_with_pg_temp_last(function: Function) -> None:
    path = function.settings.get("search_path")
    if function.language == "internal":  # PostgreSQL's own code, under an operator's name
        assert path is None and function.volatility == "immutable"
        return
    if function.language == "plpython3u":
        assert (path is None) == (function.name in _UNPINNED), "the allow-list is exact"
    if path is None:
        assert function.language == "plpython3u" and function.name in _UNPINNED
        assert "plpy" not in function.body
    else:
        assert path == ["pg_catalog", "pg_temp"]


@each
def test_whose_rights_it_has_is_said(function: Function) -> None:
    assert function.definer is not None
    if function.definer:
        assert function.language in ("sql", "plpgsql"), "PL/Python stands behind gates"


def test_definers_say_why_and_are_not_publics() -> None:
    definers = [function for function in functions().values() if function.definer]
    assert definers
    for function in definers:
        (text,) = [
            path.read_text()
            for path in SQL.glob("functions/**/*.sql")
            if f"function {function.name}(" in path.read_text()
            and "create or replace function " + function.name + "(" in path.read_text()
        ]
        made = text.index(f"create or replace function {function.name}(")
        assert re.search(r"-- definer because [^\n]+(\n--[^\n]+)*\n$", text[:made]), function.signature
        assert f"revoke execute on function {function.signature} from public;" in text, function.signature


def test_public_has_execute_on_nothing() -> None:
    """The last word is privileges.sql's: both schemas, after every function was made."""
    revoked = last = -1
    for place, node in enumerate(statements()):
        if isinstance(node, ast.CreateFunctionStmt):
            last = place
        if (
            isinstance(node, ast.GrantStmt)
            and not node.is_grant
            and node.objtype == ObjectType.OBJECT_FUNCTION
            and node.targtype == GrantTargetType.ACL_TARGET_ALL_IN_SCHEMA
        ):
            assert {part.sval for part in node.objects} == {"ward", "ward_internal"}
            revoked = place
    assert revoked > last > 0
    for node in statements()[revoked:]:
        if isinstance(node, ast.GrantStmt) and node.is_grant:
            public = [grantee for grantee in node.grantees if grantee.rolename is None]
            assert not public


@each
def test_names_begin_with_a_verb(function: Function) -> None:
    schema, name = function.name.split(".")
    assert schema in ("ward", "ward_internal")
    assert _NOUNS.match(name) or _VERBS.match(name)


@each
def test_parameters_and_variables_have_their_prefix(function: Function) -> None:
    for parameter in function.parameters:
        if parameter:
            assert parameter.startswith("p_") or (function.name, parameter) in _PUBLIC_PARAMETERS
    if function.language == "plpgsql":
        declared = re.search(r"\bdeclare\n(.*?)\nbegin\n", function.body, re.S)
        for line in declared[1].splitlines() if declared else ():
            name = re.match(r"  (\w+) ", line)
            assert name is None or name[1].startswith("v_"), line


@each
def test_volatility_is_the_truth(function: Function) -> None:
    writes = re.search(
        r"\b(insert into|update ward|delete from|drop|alter|create|grant|revoke|lock table|for update)\b",
        _without_literals(function.body),
    )
    if function.language != "plpython3u" and function.body:
        if writes or re.search(r"\bexecute\b", _without_literals(function.body)):
            assert function.volatility == "volatile"
        if re.search(r"\b(from|join) (pg_|ward)", function.body):
            assert function.volatility != "immutable"
    if function.language == "plpython3u":
        stable = _STABLE_NAMES.match(function.short)
        assert function.volatility == ("stable" if stable else "volatile")


@each
def test_parallel_label_is_the_truth(function: Function) -> None:
    """The context is in the leader's memory: what reads it is restricted; what changes it is unsafe."""
    if function.language == "plpython3u":
        reads = _STABLE_NAMES.match(function.short) and function.short != "look_up_now"
        assert function.parallel == ("restricted" if reads else "unsafe")
    elif function.parallel == "safe":
        assert function.volatility == "immutable"
        assert not re.search(r"\bward", function.body)


def test_immutable_functions_depend_on_no_setting() -> None:
    needed = {
        "timestamptz": {"datestyle", "timezone"},
        "interval": {"intervalstyle"},
        "float4": {"extra_float_digits"},
        "float8": {"extra_float_digits"},
    }
    canonical = {f.types[0]: f for f in functions().values() if f.name == "ward_internal.canonical"}
    assert canonical.keys() >= needed.keys()
    for kind, function in canonical.items():
        assert function.settings.keys() >= needed.get(kind, set()), kind
        assert function.volatility == "immutable"


def test_everything_public_is_explained() -> None:
    comments: dict[str, str] = {}
    for node in statements():
        if isinstance(node, ast.CommentStmt):
            match node.objtype:
                case ObjectType.OBJECT_FUNCTION:
                    types = ", ".join(type_name(kind) for kind in node.object.objargs or ())
                    key = f"{dotted(node.object.objname)}({types})"
                case ObjectType.OBJECT_VIEW | ObjectType.OBJECT_TABLE:
                    key = dotted(node.object)
                case ObjectType.OBJECT_SCHEMA | ObjectType.OBJECT_ROLE:
                    key = node.object.sval
                case _:
                    continue
            comments[key] = node.comment
    public = [f.signature for f in functions().values() if f.name.startswith("ward.")]
    views = [
        f"{node.view.schemaname}.{node.view.relname}"
        for node in statements()
        if isinstance(node, ast.ViewStmt)
    ]
    for name in [*public, *views, "ward", "ward_internal", "ward_model", "ward_owner", "ward_tenant"]:
        assert len(comments.get(name, "")) > 15, name


def test_constraints_and_indexes_are_named() -> None:
    for node in statements():
        if isinstance(node, ast.CreateStmt):
            constraints = list(node.constraints or ())
            for element in node.tableElts:
                constraints += (
                    [element] if isinstance(element, ast.Constraint) else list(element.constraints or ())
                )
            for constraint in constraints:
                kind = constraint.contype.name
                if kind not in ("CONSTR_NOTNULL", "CONSTR_DEFAULT", "CONSTR_NULL"):
                    assert constraint.conname, (node.relation.relname, kind)
        if isinstance(node, ast.IndexStmt):
            assert node.idxname


def _without_literals(body: str) -> str:
    body = re.sub(r"--[^\n]*", "", body)
    body = re.sub(r"\$(\w+)\$.*?\$\1\$", "''", body, flags=re.S)
    return re.sub(r"'(?:[^']|'')*'", "''", body)


def test_what_python_refuses_is_raised_by_its_caller() -> None:
    """A null that nobody looks at would be an answer."""
    names = [f.name for f in functions().values() if f.language == "plpython3u"]
    call = re.compile(rf"(\S*)\b({'|'.join(map(re.escape, names))})\(")
    # the nulls of two keys are looked at together, those of audit_lines line by line; the others raise
    known = {"ward_internal.derive_key", "ward_internal.provision_key", "ward_internal.audit_lines"}
    known.add("ward.take_refusal")
    unguarded = [
        (function.name, called)
        for function in functions().values()
        if function.language != "plpython3u"
        for before, called in call.findall(_without_literals(function.body or ""))
        if not before.endswith("coalesce(") and called not in known
    ]
    assert unguarded == []


def test_no_program_decides_by_the_log() -> None:
    """State has tables: the views of events are made, documented and read by people."""
    root = Path(__file__).parents[2]
    readers = [
        f"{path.relative_to(root)}: {line.strip()}"
        for path in (*root.glob("sql/**/*.sql"), *root.glob("src/wardkey/**/*.py"))
        for line in path.read_text().splitlines()
        if re.search(r"\b(from|join) ward(_internal)?\.events\b", line) and "dist" not in path.parts
    ]
    assert readers == []
