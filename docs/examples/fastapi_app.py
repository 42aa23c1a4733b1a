"""A clinic's service on FastAPI, after afternoon/tables.sql: each request is one transaction of its token.

    uvicorn --app-dir docs/examples fastapi_app:app

WARDKEY_WARDS_DSN: of all wards, postgresql://tenant_{tenant}@host:port/db?passfile=…
WARDKEY_ISSUERS: the file that says whose tokens pass.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import psycopg
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

import wardkey
from wardkey.client import AsyncWardConnection
from wardkey.errors import ClassHidden, ContextError, KeeperUnavailable, ServerError, WardError
from wardkey.gateway import AsgiGateway, Identity, Trust
from wardkey.gateway.fastapi import identity, require


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with wardkey.AsyncWards(os.environ["WARDKEY_WARDS_DSN"]) as app.state.wards:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(AsgiGateway, trust=Trust(Path(os.environ["WARDKEY_ISSUERS"])), public=["/health"])


async def ward(
    request: Request, who: Annotated[Identity, Depends(identity)]
) -> AsyncIterator[AsyncWardConnection]:
    """The transaction of a request: committed before the answer, rolled back if the request fails."""
    async with request.app.state.wards.transaction(who.token) as connection:
        yield connection


Ward = Annotated[AsyncWardConnection, Depends(ward, scope="function")]


class Person(BaseModel):
    mrn: str
    name: str
    birth_date: date | None = None
    zip: str | None = None


@app.exception_handler(WardError)
async def refuse(request: Request, error: WardError) -> JSONResponse:
    """Messages and hints of wardkey have no value and no token in them."""
    if isinstance(error, KeeperUnavailable | ServerError):
        status = 503
    else:
        status = 403 if isinstance(error, ContextError | ClassHidden) else 500
    return JSONResponse({"detail": str(error), "code": error.sqlstate, "hint": error.hint}, status)


@app.exception_handler(psycopg.errors.IntegrityError)
async def conflict(request: Request, error: psycopg.errors.IntegrityError) -> JSONResponse:
    return JSONResponse({"detail": error.diag.message_primary, "code": error.sqlstate}, 409)


@app.get("/health")
async def health() -> str:
    return "ok"


@app.get("/people")
async def people(ward: Ward, after: int = 0) -> list[dict[str, Any]]:
    """A page of 20, of what this tenant and role may see."""
    cursor = await ward.execute(
        "select id, mrn, birth_date, zip from people where id > %s order by id limit 20", [after]
    )
    return [dict(zip(("id", "mrn", "birth_date", "zip"), row, strict=True)) async for row in cursor]


@app.get("/people/{number}/name")
async def name(ward: Ward, number: int) -> str:
    row = await (await ward.execute("select name from people where id = %s", [number])).fetchone()
    if row is None:
        raise HTTPException(404)
    return str(row[0])


@app.post("/people", status_code=201)
async def add(ward: Ward, person: Person) -> int:
    cursor = await ward.execute(
        "insert into people (mrn, name, birth_date, zip) values (%(mrn)s, %(name)s, %(birth_date)s, %(zip)s)"
        " returning id",
        person.model_dump(),
    )
    row = await cursor.fetchone()
    assert row
    return int(row[0])


@app.delete("/people/{number}", status_code=204, dependencies=[Depends(require("ADMIN"))])
async def remove(ward: Ward, number: int) -> None:
    await ward.execute("delete from people where id = %s", [number])
