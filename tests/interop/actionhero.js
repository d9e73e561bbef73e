// An Actionhero node that evaluates code from stdin, one JSON object a line: {"id", "code", "args"}. It prints
// {"id", "result"} or {"id", "error"}.
const readline = require("node:readline");
const actionhero = require("actionhero");
const resque = require("node-resque");

const app = new actionhero.Process();
app.registerProcessSignals((code) => process.exit(code));

const { api, cache, chatRoom, redis } = actionhero;
const AsyncFunction = (async () => {}).constructor;

async function run({ id, code, args }) {
  try {
    const evaluate = new AsyncFunction("api", "cache", "chatRoom", "redis", "resque", "args", code);
    const result = await evaluate(api, cache, chatRoom, redis, resque, args);
    console.log(JSON.stringify({ id, result: result ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ id, error: String(error) }));
  }
}

async function main() {
  await app.start();
  console.log(JSON.stringify({ port: api.servers.servers.web.server.address().port }));
  readline.createInterface({ input: process.stdin }).on("line", (line) => run(JSON.parse(line)));
}

main();
