"""Names: columns called like what HIPAA lists as identifying (45 CFR 164.514), and not sealed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pglast import ast
from pglast.enums import AlterTableType

from .._flow import name_of
from .._model import Project
from .._rule import Hit, Rules, Statement, hit, value

__all__ = ["RULES"]

RULES = Rules()
_KINDS = {
    "WL301": (
        r"(first|last|given|family|middle|full|maiden|patient|preferred|legal|nick|sur|fore)_?names?|given"
        r"|family|surname|initials|next_of_kin|emergency_contact|guarantor|mother_maiden"
    ),
    "WL302": (
        r"dob|birth_?da(te|y)|date_of_birth|born(_on|_at)?|death_?date|date_of_death|deceased(_on|_at)?"
        r"|died(_on|_at)?|(admission|discharge)_date"
    ),
    "WL303": r"phone|telephone|mobile|cell_?phone|fax|pager|e?_?mail(_address)?|phone_number|fax_number",
    "WL304": (
        r"address|addr|street(_address)?|city|county|zip(_?code)?|post(al)?_?code|lat(itude)?|lon(gitude)?"
        r"|lng|geo_?point|home_location"
    ),
    "WL305": (
        r"ssn|social_security(_number)?|sin|nin|nhs_?(number|no)|passport(_number)?"
        r"|driv(er|ing|ers)_?licen[cs]e(_number)?|tax_id|tin|national_id|medicare(_number|_id)?"
        r"|medicaid(_number|_id)?|insurance_(number|id)|policy_number|member_(number|id)"
        r"|beneficiary(_number|_id)?|aadhaar|cpf|bsn"
    ),
    "WL306": (
        r"mrn|medical_record(_number|_no)?|patient_number|chart_number|account_number|iban|card_number"
        r"|health_plan(_number)?|certificate_number"
    ),
    "WL307": (
        r"diagnos[ie]s|symptoms?|allerg(y|ies)|medications?|prescriptions?|treatments?|chief_complaint"
        r"|impression|lab_results?|test_results?|blood_(type|group|pressure)|hiv(_status)?|pregnan(t|cy)"
        r"|mental_health|psych\w*|genotype|genome|dna|icd(9|10|11)?(_code)?|snomed(_code)?"
        r"|disabilit(y|ies)|substance_use|medical_history|family_history"
    ),
    "WL308": (
        r"photo(graph)?|portrait|face_?(image|print)|finger_?prints?|retina(l_scan)?|iris(_scan)?"
        r"|voice_?(print|recording)|signature_image|biometric(s|_data)?|palm_print"
    ),
    "WL309": (
        r"ip(_address|_addr)?|mac_address|imei|imsi|device_(serial|id|identifier)|implant_(serial|id)"
        r"|serial_number|vin|licen[cs]e_plate|advertising_id"
    ),
    "WL310": (
        r"notes?|comments?|remarks?|memo|narrative|free_?text|clinical_note|progress_note|message_body"
        r"|reason_for_visit|transcript"
    ),
}


def _columns(node: Any, project: Project) -> Iterator[tuple[str, Any]]:
    """Yield the plain columns that a statement makes, with their table's name."""
    table = project.model.find(node.relation)
    schema = node.relation.schemaname or ""
    if schema.startswith(("ward", "pg_")) or node.relation.relpersistence == "t":
        return
    if table is not None and (table.state == "shared" or table.sealed is None):
        return
    if isinstance(node, ast.CreateStmt):
        made = node.tableElts or ()
    else:
        made = [one.def_ for one in node.cmds if one.subtype == AlterTableType.AT_AddColumn]
    for column in made:
        is_column = isinstance(column, ast.ColumnDef) and column.typeName is not None
        if not is_column or (table is not None and column.colname in (table.sealed or ())):
            continue
        if column.typeName.names[-1].sval != "bool":
            yield (table.name if table is not None else node.relation.relname), column


def _add(rule: str, pattern: str) -> None:
    ends = r"(?:_?\d|_(?:home|work|line_?\d|text|raw|hash))?\Z"
    full = re.compile(rf"(?:\w+_)?(?:{pattern}){ends}", re.IGNORECASE)

    @RULES.rule(rule, ast.CreateStmt, ast.AlterTableStmt)
    def name_not_sealed(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
        for table, one in _columns(node, project):
            if full.match(one.colname):
                yield hit(one.colname, table, at=one)


for _rule, _pattern in _KINDS.items():
    _add(_rule, _pattern)


@RULES.rule("WL311", ast.FuncCall)
def shared_person(node: ast.FuncCall, at: Statement, project: Project) -> Iterator[Hit]:
    if name_of(node.funcname) != "ward.share" or not node.args:
        return
    table = project.model.tables.get(str(value(node.args[0])).replace('"', ""))
    for column in table.columns if table is not None else ():
        if _PERSON.match(column):
            yield hit(table.name if table else "", column, at=node)
            return


_PERSON = re.compile(
    "|".join(rf"(?:{_KINDS[rule]})\Z" for rule in ("WL301", "WL302", "WL305", "WL306")), re.IGNORECASE
)
