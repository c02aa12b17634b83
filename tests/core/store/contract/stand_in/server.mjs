// Serves the Data API of every database of one Postgres server: http://127.0.0.1:PORT/DATABASE/rest/v1/...
// Usage: node server.mjs SOCKET_FILE SECRET_KEY JWT_SECRET. Prints the port on its first line and ends with its standard input.
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const folder = pathToFileURL(`${process.cwd()}/node_modules/@supabase/lite/dist/`);
const { App } = await import(new URL("index.js", folder));
const { createPostgresConnection } = await import(new URL("db/postgres/PostgresConnection.js", folder));

const { default: postgres } = await import(new URL("../../postgres/src/index.js", new URL("../", folder)));

// PostgREST answers with the SQLSTATE of what a function raises; the stand-in forgets all but a few, so they are kept here.
const states = new Map();
Object.defineProperty(postgres.PostgresError.prototype, "code", {
  get() { return states.get(this.message); },
  set(value) { states.set(this.message, value); },
});

function withState(answer) {
  const error = JSON.parse(answer);
  if (error.code !== "SUP") return answer;
  const message = error.message.replace(/^PostgresError: /, "");
  return JSON.stringify({ ...error, message, code: states.get(message) ?? error.code });
}

const [socket, secretKey, jwtSecret] = process.argv.slice(2);
const apps = new Map();

// PostgREST writes bytea as hexadecimal text, and what JSON has no number for as text; the stand-in would not. It also hands on the
// arguments of a function as JSON text already, and would quote that text again.
const json = { serialize: (value) => (typeof value === "string" ? value : JSON.stringify(value)), parse: (text) => JSON.parse(text) };
const types = {
  json: { to: 114, from: [114], ...json },
  jsonb: { to: 3802, from: [3802], ...json },
  bytea: {
    to: 17,
    from: [17],
    parse: (text) => text,
    serialize: (value) => (typeof value === "string" ? value : `\\x${Buffer.from(value).toString("hex")}`),
  },
  float8: {
    to: 701,
    from: [700, 701],
    parse: (text) => (Number.isFinite(Number(text)) ? Number(text) : text),
    serialize: String,
  },
};

function appOf(database) {
  if (!apps.has(database)) {
    const connection = createPostgresConnection({
      url: `postgres://postgres@localhost/${database}`,
      postgresOptions: { path: socket, max: 4, idle_timeout: 1, onnotice: () => {}, types },
    });
    const auth = { enabled: false, secret_key: secretKey, publishable_key: `sb_publishable_${secretKey}`, jwt_secret: jwtSecret };
    apps.set(database, new App({ connection, api: { enabled: true, schemas: ["public"] }, auth }));
  }
  return apps.get(database);
}

const server = createServer(async (incoming, outgoing) => {
  try {
    const [, database, ...rest] = incoming.url.split("/");
    const chunks = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const body = ["GET", "HEAD"].includes(incoming.method) ? undefined : Buffer.concat(chunks);
    const request = new Request(`http://127.0.0.1/${rest.join("/")}`, { method: incoming.method, headers: incoming.headers, body });
    const response = await appOf(database).fetch(request, { peerAddress: null });
    let answer = Buffer.from(await response.arrayBuffer());
    if (answer.includes('"SUP"')) answer = Buffer.from(withState(answer.toString()));
    response.headers.delete("content-length");
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    outgoing.end(answer);
  } catch (error) {
    outgoing.writeHead(500, { "content-type": "text/plain" });
    outgoing.end(String(error.stack));
  }
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
