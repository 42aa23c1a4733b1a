// node-postgres on a ward, after specimens.sql: the login is the first statement of each transaction.
//
// WARDKEY_WARD_DSN: postgresql://tenant_acme@host:port/db, the password in PGPASSWORD or a passfile. WARDKEY_TOKEN: of
// your identity provider, or `wardkey token`. WARDKEY_POOLER=1: behind PgBouncer in transaction mode.
import { deepStrictEqual } from "node:assert";
import pg from "pg";
import Cursor from "pg-cursor";

const { WARDKEY_WARD_DSN: connectionString, WARDKEY_TOKEN: TOKEN, WARDKEY_POOLER: POOLED } = process.env;
const INSERT = "insert into specimens (accession, note) values ($1, $2)";
const EVERY_TYPE = {
  accession: "types",
  note: "Ünïcode, 'quoted'",
  rack: "R-17",
  shelf: "B   ",
  fasting: true,
  tubes: -32768,
  volume: 2147483647,
  serial: 9007199254740993n,
  result: "1234567890123456.7890",
  ratio: 0.5,
  factor: 0.1,
  collected_on: "2026-03-29",
  collected_at: "2026-03-29 01:30:00.123456+00",
  read_at: "2026-03-29 02:30:00.123456",
  daily_at: "23:59:59.999999",
  called_at: "12:00:00+05:45",
  kept: "40 days 03:00:00.000001",
  device: "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
  message: { b: 1, a: [null, "x"] },
  details: { a: { b: [1, 2] } },
  image: Buffer.from(Array.from({ length: 256 }, (_, n) => n)),
  address: "2001:db8::1/64",
  codes: ["a,b", 'c"d', null],
  levels: [-1, 1],
  positions: [[1, 2], [3, 4]],
  counts: ["9007199254740993"],
  state: "used up",
};

// A Date has milliseconds and the time zone of this machine: dates and times stay text. A number has 53 bits.
for (const name of ["DATE", "TIMESTAMP", "TIMESTAMPTZ", "INTERVAL"]) {
  pg.types.setTypeParser(pg.types.builtins[name], (text) => text);
}
pg.types.setTypeParser(pg.types.builtins.INT8, BigInt);

const pool = new pg.Pool({ connectionString, max: 2 });

async function ward(work, token = TOKEN) {
  const client = await pool.connect();
  let failure;
  try {
    await client.query("begin");
    await client.query("select ward.login($1), set_config('timezone', 'UTC', true)", [token]);
    const result = await work(client);
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback").catch((broken) => { failure = broken; });
    throw error;
  } finally {
    client.release(failure); // the pool resets nothing: a transaction left open would be the next one's
  }
}

await ward(async (client) => {
  const { rows: [{ id }] } = await client.query(`${INSERT} returning id`, ["A-17", "chest pain"]);
  const read = async () => (await client.query("select note from specimens where id = $1", [id])).rows[0].note;
  console.log("inserted", await read());
  // many rows in one statement: an array for each column
  const numbers = Array.from({ length: 100 }, (_, n) => n);
  await client.query(
    "insert into specimens (accession, note) select * from unnest($1::text[], $2::text[])",
    [numbers.map((n) => `B-${n}`), numbers.map((n) => `batch ${n}`)],
  );
  await client.query("update specimens set note = $2 where id = $1", [id, "cough"]);
  console.log("updated", await read());
  const deleted = await client.query("delete from specimens where accession = $1 returning note", ["B-99"]);
  console.log("deleted", deleted.rows[0].note);
});

await ward(async (client) => {
  const names = Object.keys(EVERY_TYPE).join(", ");
  const values = Object.keys(EVERY_TYPE).map((_, n) => `$${n + 1}`).join(", ");
  const query = `insert into specimens (${names}) values (${values}) returning ${names}`;
  const returned = (await client.query(query, Object.values(EVERY_TYPE))).rows[0];
  const read = (await client.query(`select ${names} from specimens where accession = 'types'`)).rows[0];
  deepStrictEqual({ ...returned }, EVERY_TYPE);
  deepStrictEqual({ ...read }, EVERY_TYPE);
  console.log("types", Object.keys(read).length - 1);
});

// A name makes it a prepared statement, which PgBouncer knows from 1.21 on. It outlives the transaction; whose rows
// it reads, each login says.
const statement = { name: POOLED ? undefined : "note", text: "select note from specimens where accession = $1" };
let note;
for (let n = 0; n < 7; n++) {
  note = await ward(async (client) => (await client.query({ ...statement, values: ["A-17"] })).rows[0].note);
}
console.log("prepared", note);

await ward(async (client) => {
  const cursor = client.query(
    new Cursor("select note from specimens where accession like $1 order by id", ["B-%"]),
  );
  const seen = [];
  for (let rows; (rows = await cursor.read(10)).length > 0; ) seen.push(...rows.map((row) => row.note));
  console.log("cursor", seen.length, seen[0], seen.at(-1));
});

await ward(async (client) => {
  await client.query("savepoint before");
  try {
    await client.query(INSERT, ["A-17", "twice"]);
  } catch (error) {
    console.log("savepoint", error.code, error.table, error.constraint);
    await client.query("rollback to savepoint before");
  }
  const { rows } = await client.query("select count(*) from specimens where note = 'cough'");
  console.log("goes on", String(rows[0].count));
});

try {
  await ward(async () => {}, "not a token");
} catch (error) {
  console.log("refused", error.code, error.message);
  console.log("hint", error.hint);
}
try {
  await pool.query("select note from specimens"); // no login in this transaction
} catch (error) {
  console.log("refused", error.code, error.message);
}
await pool.end();
