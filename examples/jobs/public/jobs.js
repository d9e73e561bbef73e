import { Phalanx } from "/phalanx-client.js";
import { showAlbum } from "/albums.js";
import { showExport } from "/exports.js";

const READ_SPREAD_MS = 2000; // all members of a room get a gap at once

const element = (id) => document.getElementById(id);
const client = new Phalanx({ keepTrying: true });

/** A list that follows a room: its action reads all entries, messages of the room are entries that have changed. */
class FollowedList {
  #room;
  #show;
  #hasJoined = false;
  /** Messages that came while the entries were read: they are newer than what was read. */
  #meanwhile;

  /** The room is named as its action, and as the field of its answer. */
  constructor(room, show) {
    this.#room = room;
    this.#show = show;
    client.addEventListener("gap", ({ detail }) => {
      if (detail.room === room) setTimeout(() => this.read().catch(showError), Math.random() * READ_SPREAD_MS);
    });
    client.addEventListener("message", ({ detail }) => {
      if (detail.room !== room) return;
      if (this.#meanwhile) this.#meanwhile.push(detail.message);
      else show(detail.message);
    });
  }

  async follow() {
    if (!this.#hasJoined) await client.roomAdd(this.#room); // after that the client joins again by itself
    this.#hasJoined = true;
    await this.read();
  }

  /** Reads the entries: after a new connection and after a gap, when messages may have been missed. */
  async read() {
    if (this.#meanwhile || client.id === undefined) return;
    this.#meanwhile = [];
    try {
      const answer = await client.action(this.#room);
      answer[this.#room].forEach(this.#show);
    } finally {
      const newer = this.#meanwhile;
      this.#meanwhile = undefined;
      newer.forEach(this.#show);
    }
  }
}

const lists = [new FollowedList("exports", showExport), new FollowedList("albums", showAlbum)];

/** Has a form run a function, one at a time; its first field is cleared where that succeeds. */
function onSubmit(form, run) {
  const [field] = form.elements;
  const button = form.querySelector("button");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    showError();
    button.disabled = true;
    try {
      await run();
      field.value = "";
    } catch (error) {
      showError(error);
    }
    button.disabled = client.id === undefined;
  });
}

onSubmit(element("start-form"), async () => {
  const started = { name: element("name").value, pages: element("pages").valueAsNumber };
  const { id } = await client.action("startExport", started);
  showExport({ ...started, id, state: "waiting", page: 0 });
});

onSubmit(element("album-form"), async () => {
  const names = element("photos").value.split(",").map((name) => name.trim());
  const photos = names.filter((name) => name !== "").map((name) => ({ name }));
  showAlbum(await client.action("makeAlbum", { name: element("album").value, photos }));
});

client.addEventListener("connected", async () => {
  showError();
  showStatus("on", "connected");
  try {
    await Promise.all(lists.map((list) => list.follow()));
  } catch (error) {
    if (error.code !== "disconnected") showError(error);
  }
});
client.addEventListener("reconnecting", () => showStatus("trying", "no connection: reconnecting …"));
client.addEventListener("disconnected", ({ detail: { willReconnect } }) => {
  if (!willReconnect) showStatus("off", "not connected");
});
client.addEventListener("refused", ({ detail: { error } }) => showError(error));
client.addEventListener("error", ({ detail }) => showError(detail));
client.addEventListener("away", () => showStatus("trying", "the server is cut off: progress does not arrive"));
client.addEventListener("gap", () => showStatus("on", "connected"));

function showStatus(status, text) {
  for (const button of document.querySelectorAll("form button")) button.disabled = status !== "on";
  if (element("state").textContent === text) return; // screen readers read a change, so not at every attempt
  element("state").dataset.status = status;
  element("state").textContent = text;
}

/** Shows an error, or clears the last one. */
function showError(error = "") {
  const details = (error.details ?? []).map(({ path, message }) => `${path} ${message}`);
  element("error").textContent = [error.message ?? error, ...details].join("; ");
}

showStatus("trying", "connecting …");
client.connect().catch(showError);
