import { Phalanx } from "/phalanx-client.js";

const ROOM = "lobby";
const MOST_MESSAGES = 500;
/** Who comes and goes within this time costs one question. */
const READ_AFTER_MS = 250;
/** Who comes back is in the room a moment before its name is known: one more question, once it is quiet. */
const READ_AGAIN_AFTER_MS = 3000;

const at = (id) => document.getElementById(id);
const client = new Phalanx();
let isIn = false;

at("entrance").addEventListener("submit", async (event) => {
  event.preventDefault();
  remember(at("name").value);
  complain();
  at("join").disabled = true;
  if (client.id === undefined) tell("trying", "connecting …");
  try {
    await client.connect();
    await sayMyName();
    await client.roomAdd(ROOM);
    enter();
  } catch (error) {
    complain(error);
  }
  at("join").disabled = false;
});

at("speak").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = at("text").value;
  at("text").value = "";
  complain();
  try {
    await client.say(ROOM, text);
  } catch (error) {
    if (at("text").value === "") at("text").value = text;
    complain(error);
  }
});

client.addEventListener("connected", async () => {
  if (isIn) {
    complain();
    note("Connected again; what was said meanwhile is missing here.");
    await sayMyName().catch(complain);
  }
  if (client.id === undefined) return; // gone again
  tell("on", "connected");
  readMembers();
});

client.addEventListener("reconnecting", ({ detail: { delayMs } }) => {
  if (delayMs === null) return tell("trying", "offline: reconnecting as soon as there is a network");
  tell("trying", "no connection: reconnecting …");
});

client.addEventListener("disconnected", ({ detail: { willReconnect } }) => {
  if (willReconnect) return;
  tell("off", "not connected");
  leave("The server ended the connection.");
});

client.addEventListener("refused", ({ detail: { error } }) => leave(error));
client.addEventListener("error", ({ detail }) => complain(detail));
client.addEventListener("message", ({ detail }) => show(detail));
client.addEventListener("presence", readMembers);
client.addEventListener("gap", () => {
  note("Messages may be missing here.");
  readMembers();
});

function enter() {
  isIn = true;
  at("entrance").hidden = true;
  at("room").hidden = false;
  at("text").focus();
  readMembers();
}

function leave(why) {
  complain(why);
  if (!isIn) return;
  isIn = false;
  at("entrance").hidden = false;
  at("room").hidden = true;
  at("name").focus();
}

/** A name belongs to a connection, so each new one is told it. */
function sayMyName() {
  return client.action("setName", { name: at("name").value.trim() });
}

let soon;
let later;
function readMembers() {
  soon ??= setTimeout(() => {
    soon = undefined;
    showMembers();
  }, READ_AFTER_MS);
  clearTimeout(later);
  later = setTimeout(showMembers, READ_AGAIN_AFTER_MS);
}

let reads = 0;
async function showMembers() {
  if (!isIn || client.id === undefined) return; // it is read again once connected
  const read = ++reads;
  try {
    const { members } = await client.action("members", { room: ROOM });
    if (read !== reads) return; // a newer answer is under way
    at("count").textContent = `(${members.length})`;
    at("members").replaceChildren(...members.map(({ id, name }) => line("li", name, { isOwn: id === client.id })));
  } catch (error) {
    if (error.code !== "disconnected") complain(error);
  }
}

/** Shows a message. What is in it comes from anybody: it is only ever text. */
function show({ message, from, sentAt }) {
  const { name, text } = Object(message);
  const isSigned = typeof name === "string" && typeof text === "string";
  const who = document.createElement("strong");
  who.textContent = `${isSigned ? name.slice(0, 32) : "someone"}: `;
  const when = document.createElement("time");
  const date = new Date(sentAt);
  if (!Number.isNaN(date.getTime())) {
    when.dateTime = date.toISOString();
    when.textContent = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  }
  const shown = line("p", "", { isOwn: from === client.id });
  shown.append(who, isSigned ? text : JSON.stringify(message), when);
  append(shown);
}

function note(words) {
  const shown = line("p", words);
  shown.classList.add("note");
  append(shown);
}

/** Scrolls along only for who reads the end. */
function append(shown) {
  const log = at("log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(shown);
  while (log.children.length > MOST_MESSAGES) log.firstElementChild.remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function line(kind, words, { isOwn = false } = {}) {
  const made = document.createElement(kind);
  made.textContent = words;
  made.classList.toggle("own", isOwn);
  return made;
}

function tell(is, words) {
  at("send").disabled = is !== "on"; // what is typed meanwhile stays; nobody speaks without a name
  if (at("state").textContent === words) return; // said once, not at every try
  at("state").dataset.is = is;
  at("state").textContent = words;
}

/** Shows what went wrong, or that nothing is wrong any more. */
function complain(error = "") {
  const details = (error.details ?? []).map(({ path, message }) => `${path} ${message}`);
  at("trouble").textContent = [error.message ?? error, ...details].join("; ");
}

/** Some browsers keep nothing, and throw: then the name is asked again next time. */
function remember(name) {
  try {
    localStorage.setItem("name", name);
  } catch {
    return;
  }
}

try {
  at("name").value = localStorage.getItem("name") ?? "";
} catch {
  at("name").value = "";
}

const narrow = matchMedia("(max-width: 40rem)");
const fold = () => { at("who").open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();
