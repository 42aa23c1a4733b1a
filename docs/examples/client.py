"""Read and write a ward from Python, after protect.sql.

WARDKEY_TOKEN: of your identity provider, or `wardkey token`; WARDKEY_WARD_DSN: the tenant's login role, or
that of all, with {tenant} where the slug belongs.
"""

import os

import psycopg

import wardkey
from wardkey.errors import InvalidToken

DSN, TOKEN = os.environ["WARDKEY_WARD_DSN"], os.environ["WARDKEY_TOKEN"]
INSERT = "insert into orders (accession, ordered_by, reason) values (%s, %s, %s) returning reason"

# The client: BEGIN, login and the first statement in one round trip, an exception for each error of class WK.
with wardkey.Wards(DSN) as wards:
    with wards.transaction(TOKEN) as connection:
        print("inserted", connection.execute(INSERT, ["A-18", "dr.grey", "cough"]).fetchone())
    try:
        with wards.transaction("not a token") as connection:
            connection.execute("select 1")
    except InvalidToken as error:
        print(error.sqlstate, error.hint)

# Any other driver: the login first in each transaction, the token as a parameter.
with psycopg.connect(DSN) as connection, connection.transaction():
    connection.execute("select ward.login(%s)", [TOKEN])
    for (reason,) in connection.execute("select reason from orders where accession = 'A-18'"):
        print(reason)
