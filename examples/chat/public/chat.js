import { Phalanx } from "/phalanx-client.js";

const ROOM = "lobby";
const MAX_MESSAGES = 500;
/** Joins and leaves within this time cost one request for the members. */
const READ_AFTER_MS = 250;
/** A client that reconnects joins the room before it has set its name: the members are read again after a pause. */
const READ_AGAIN_AFTER_MS = 3000;
const READ_SPREAD_MS = 2000; // all members of a room get a gap at once

const element = (id) => document.getElementById(id);
const client = new Phalanx();
let hasJoined = false;

element("join-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  saveName(element("name").value);
  showError();
  element("join").disabled = true;
  if (client.id === undefined) showStatus("trying", "connecting …");
  try {
    await client.connect();
    await sendName();
    await client.roomAdd(ROOM);
    enter();
  } catch (error) {
    showError(error);
  }
  element("join").disabled = false;
});

element("message-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = element("text").value;
  element("text").value = "";
  showError();
  try {
    await client.say(ROOM, text);
  } catch (error) {
    if (element("text").value === "") element("text").value = text;
    showError(error);
  }
});

client.addEventListener("connected", async () => {
  if (hasJoined) {
    showError();
    showNote("Connected again; messages sent meanwhile are missing here.");
    await sendName().catch(showError);
  }
  if (client.id === undefined) return; // disconnected again
  showStatus("on", "connected");
  readMembers();
});

client.addEventListener("reconnecting", ({ detail: { delayMs } }) => {
  if (delayMs === null) return showStatus("trying", "offline: reconnecting as soon as there is a network");
  showStatus("trying", "no connection: reconnecting …");
});

client.addEventListener("disconnected", ({ detail: { willReconnect } }) => {
  if (willReconnect) return;
  showStatus("off", "not connected");
  leave("The server ended the connection.");
});

client.addEventListener("refused", ({ detail: { error } }) => leave(error));
client.addEventListener("error", ({ detail }) => showError(detail));
client.addEventListener("message", ({ detail }) => show(detail));
client.addEventListener("presence", readMembers);
client.addEventListener("away", () => {
  showStatus("trying", "the server is cut off: messages do not arrive");
});
client.addEventListener("gap", () => {
  showStatus("on", "connected");
  showNote("Messages may be missing here.");
  setTimeout(readMembers, Math.random() * READ_SPREAD_MS);
});

function enter() {
  hasJoined = true;
  element("join-form").hidden = true;
  element("room").hidden = false;
  element("text").focus();
  readMembers();
}

function leave(reason) {
  showError(reason);
  if (!hasJoined) return;
  hasJoined = false;
  element("join-form").hidden = false;
  element("room").hidden = true;
  element("name").focus();
}

/** Sets the name of the connection. A name belongs to one connection, so each new one needs it. */
function sendName() {
  return client.action("setName", { name: element("name").value.trim() });
}

let firstRead;
let secondRead;
/** Reads the members after a short delay, so that many presence events cost one request. */
function readMembers() {
  firstRead ??= setTimeout(() => {
    firstRead = undefined;
    showMembers();
  }, READ_AFTER_MS);
  clearTimeout(secondRead);
  secondRead = setTimeout(showMembers, READ_AGAIN_AFTER_MS);
}

let lastRead = 0;
async function showMembers() {
  if (!hasJoined || client.id === undefined) return; // the members are read once connected
  const read = ++lastRead;
  try {
    const { members, count } = await client.action("members", { room: ROOM });
    if (read !== lastRead) return; // a newer request is pending
    element("count").textContent = `(${count})`;
    element("members").replaceChildren(...members.map(({ id, name }) => line("li", name, { isOwn: id === client.id })));
  } catch (error) {
    if (error.code !== "disconnected") showError(error);
  }
}

/** Shows a message. Any client may have sent it, so its content is inserted as text, never as HTML. */
function show({ message, from, sentAt }) {
  const { name, text } = Object(message);
  const isSigned = typeof name === "string" && typeof text === "string";
  const sender = document.createElement("strong");
  sender.textContent = `${isSigned ? name.slice(0, 32) : "someone"}: `;
  const time = document.createElement("time");
  const date = new Date(sentAt);
  if (!Number.isNaN(date.getTime())) {
    time.dateTime = date.toISOString();
    time.textContent = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  }
  const shown = line("p", "", { isOwn: from === client.id });
  shown.append(sender, isSigned ? text : JSON.stringify(message), time);
  append(shown);
}

function showNote(text) {
  const shown = line("p", text);
  shown.classList.add("note");
  append(shown);
}

/** Appends to the log, and scrolls down only if the end was visible. */
function append(shown) {
  const log = element("log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(shown);
  while (log.children.length > MAX_MESSAGES) log.firstElementChild.remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function line(tag, text, { isOwn = false } = {}) {
  const created = document.createElement(tag);
  created.textContent = text;
  created.classList.toggle("own", isOwn);
  return created;
}

function showStatus(status, text) {
  element("send").disabled = status !== "on"; // text can be typed meanwhile, but is not sent without a name
  if (element("state").textContent === text) return; // screen readers read a change, so not at every attempt
  element("state").dataset.status = status;
  element("state").textContent = text;
}

/** Shows an error, or clears the last one. */
function showError(error = "") {
  const details = (error.details ?? []).map(({ path, message }) => `${path} ${message}`);
  element("error").textContent = [error.message ?? error, ...details].join("; ");
}

/** Stores the name for the next visit. Browsers that forbid storage throw: the name is then entered again. */
function saveName(name) {
  try {
    localStorage.setItem("name", name);
  } catch {
    return;
  }
}

try {
  element("name").value = localStorage.getItem("name") ?? "";
} catch {
  element("name").value = "";
}

const narrow = matchMedia("(max-width: 40rem)");
const fold = () => { element("member-list").open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();
