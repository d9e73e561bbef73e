import { Phalanx } from "/phalanx-client.js";

const ROOM = "exports";
const READ_SPREAD_MS = 2000; // all members of a room get a gap at once

const element = (id) => document.getElementById(id);
const client = new Phalanx({ keepTrying: true });
/** The rows by the id of their job. */
const rows = new Map();

element("start-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  showError();
  element("start").disabled = true;
  try {
    const started = { name: element("name").value, pages: element("pages").valueAsNumber };
    const { id } = await client.action("startExport", started);
    show({ ...started, id, state: "waiting", page: 0 });
    element("name").value = "";
  } catch (error) {
    showError(error);
  }
  element("start").disabled = client.id === undefined;
});

let hasJoined = false;
client.addEventListener("connected", async () => {
  showError();
  try {
    if (!hasJoined) await client.roomAdd(ROOM); // after that the client joins again by itself
    hasJoined = true;
    showStatus("on", "connected");
    await readExports();
  } catch (error) {
    showError(error);
  }
});
client.addEventListener("reconnecting", () => showStatus("trying", "no connection: reconnecting …"));
client.addEventListener("disconnected", ({ detail: { willReconnect } }) => {
  if (!willReconnect) showStatus("off", "not connected");
});
client.addEventListener("refused", ({ detail: { error } }) => showError(error));
client.addEventListener("error", ({ detail }) => showError(detail));
client.addEventListener("away", () => showStatus("trying", "the server is cut off: progress does not arrive"));
client.addEventListener("gap", () => {
  showStatus("on", "connected");
  setTimeout(readExports, Math.random() * READ_SPREAD_MS);
});
client.addEventListener("message", ({ detail: { message } }) => {
  if (meanwhile) meanwhile.push(message);
  else show(message);
});

/** Messages that came while the exports were read: they are newer than what was read. */
let meanwhile;

/** Reads the exports: after a new connection and after a gap, when progress may have been missed. */
async function readExports() {
  if (meanwhile || client.id === undefined) return;
  meanwhile = [];
  try {
    const { exports } = await client.action("exports");
    exports.forEach(show);
  } catch (error) {
    if (error.code !== "disconnected") showError(error);
  }
  const newer = meanwhile;
  meanwhile = undefined;
  newer.forEach(show);
}

const STATES = {
  waiting: () => "waits for a node",
  running: ({ page, pages, node }) => `page ${page} of ${pages}, on ${node}`,
  done: ({ pages }) => `done, ${pages} pages`,
  failed: () => "failed",
};

/** Shows what is known of an export. Names come from clients, so they are inserted as text, never as HTML. */
function show({ id, name, page, pages, node, state }) {
  let row = rows.get(id);
  if (!row) {
    row = document.createElement("li");
    row.append(document.createElement("strong"), document.createElement("progress"), document.createElement("span"));
    rows.set(id, row);
    element("exports").prepend(row);
  }
  const [title, bar, text] = row.children;
  title.textContent = name;
  bar.max = pages;
  bar.value = state === "done" ? pages : page;
  bar.setAttribute("aria-label", name);
  text.textContent = (STATES[state] ?? (() => state))({ page, pages, node });
  row.dataset.state = state;
}

function showStatus(status, text) {
  element("start").disabled = status !== "on";
  if (element("state").textContent === text) return; // screen readers read a change, so not at every attempt
  element("state").dataset.status = status;
  element("state").textContent = text;
}

/** Shows an error, or clears the last one. */
function showError(error = "") {
  const details = (error.details ?? []).map(({ path, message }) => `${path} ${message}`);
  element("error").textContent = [error.message ?? error, ...details].join("; ");
}

element("start").disabled = true;
client.connect().catch(showError);
