import { Phalanx } from "/phalanx-client.js";

const READ_SPREAD_MS = 2000; // all members of a room get a gap at once

const element = (id) => document.getElementById(id);
const client = new Phalanx({ keepTrying: true });
/** The user who is signed in. */
let me;
/** Whether the tickets were read since the sign-in. */
let hasRead = false;
/** The tickets of the page by their ids. */
const tickets = new Map();

/** Calls an action over HTTP: cookies are set there alone, and files are sent. */
async function request(path, { method = "POST", ...options } = {}) {
  const response = await fetch(`/api/${path}`, { method, ...options });
  const answer = await response.json();
  if (!response.ok) throw answer.error;
  return answer;
}

const withJson = (body) => ({ body: JSON.stringify(body), headers: { "content-type": "application/json" } });

/** Runs what a user asked for, and shows its error. */
const run = (code) => async (event) => {
  event?.preventDefault();
  showError();
  try {
    await code(event);
  } catch (error) {
    showError(error);
  }
};

element("sign-in").addEventListener("submit", run(async () => {
  await request("signIn", withJson({ user: element("user").value, password: element("password").value }));
  element("password").value = "";
  await enter();
}));

element("sign-out").addEventListener("click", run(async () => {
  leave(); // before the server closes the connection
  await request("signOut");
}));

element("others").addEventListener("click", run(async () => {
  const { result } = await request("signOutOthers");
  showError(`signed out on ${result} other devices`);
}));

element("open").addEventListener("submit", run(async () => {
  show(await client.action("ticket:open", { text: element("text").value }));
  element("text").value = "";
}));

/** A socket has the session of its upgrade, so the page connects once it is signed in. */
async function enter() {
  me = await request("whoAmI", { method: "GET" });
  element("name").textContent = me.user;
  element("role").textContent = me.isAgent ? ", an agent" : "";
  element("sign-in").hidden = true;
  element("desk").hidden = false;
  await client.connect();
  if (me.isAgent) await client.roomAdd("tickets");
  await readTickets();
  hasRead = true;
}

function leave() {
  me = undefined;
  hasRead = false;
  client.close();
  tickets.clear();
  element("tickets").replaceChildren();
  element("desk").hidden = true;
  element("sign-in").hidden = false;
  showStatus("off", "not connected");
}

client.addEventListener("connected", () => {
  showStatus("on", "connected");
  if (hasRead) readTickets().catch(showError); // it was connected before, and may have missed some
});
client.addEventListener("reconnecting", () => showStatus("trying", "no connection: reconnecting …"));
client.addEventListener("disconnected", ({ detail: { willReconnect } }) => {
  if (willReconnect || !me) return;
  leave();
  showError("you were signed out");
});
client.addEventListener("error", ({ detail }) => showError(detail));
client.addEventListener("message", ({ detail: { message } }) => show(message));
client.addEventListener("alert", ({ detail: { ticket } }) => show(ticket));
client.addEventListener("gap", () => setTimeout(() => me && readTickets().catch(showError), Math.random() * READ_SPREAD_MS));

async function readTickets() {
  const read = await client.action("tickets");
  for (const ticket of read.tickets.toReversed()) show(ticket);
}

/** Shows a ticket, in place of what was shown of it. Its texts are inserted as text, never as HTML. */
function show(ticket) {
  const { id, by, text, isOpen, file } = ticket;
  const row = document.createElement("li");
  row.classList.toggle("closed", !isOpen);
  row.append(part("strong", by), part("span", text));
  if (file !== null) {
    const link = part("a", file);
    link.href = `/api/tickets/${id}/file`;
    row.append(link);
  }
  if (isOpen) row.append(upload(id));
  if (isOpen && me?.isAgent) {
    const close = part("button", "Close");
    close.addEventListener("click", run(async () => show(await client.action("ticket:close", { id }))));
    row.append(close);
  } else if (!isOpen) {
    row.append(part("em", "closed"));
  }
  const shown = tickets.get(id);
  if (shown) shown.replaceWith(row);
  else element("tickets").prepend(row);
  tickets.set(id, row);
}

function upload(id) {
  const input = document.createElement("input");
  input.type = "file";
  input.ariaLabel = "a file for this ticket";
  input.addEventListener("change", run(async () => {
    const body = new FormData();
    body.append("file", input.files[0]);
    show(await request(`tickets/${id}/file`, { body }));
  }));
  return input;
}

function part(tag, text) {
  const created = document.createElement(tag);
  created.textContent = text;
  return created;
}

function showStatus(status, text) {
  element("state").dataset.status = status;
  element("state").textContent = text;
}

/** Shows an error or a note, or clears the last one. */
function showError(error = "") {
  const details = (error.details ?? []).map(({ path, message }) => `${path} ${message}`);
  element("error").textContent = [error.message ?? error, ...details].join("; ");
}

enter().catch((error) => {
  element("sign-in").hidden = false;
  if (error.code !== "unauthenticated") showError(error);
});
