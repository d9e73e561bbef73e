import { Phalanx } from "/phalanx-client.js";

const ROOM = "lobby";
const MOST_MESSAGES = 500;
const at = (id) => document.getElementById(id);
const client = new Phalanx();

const tell = (words) => { at("state").textContent = words; };

function show({ name, text }) {
  const log = at("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const line = document.createElement("li");
  const who = document.createElement("strong");
  who.textContent = `${name}: `;
  line.append(who, text);
  log.append(line);
  while (log.children.length > MOST_MESSAGES) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

let reading;
function readMembers() {
  clearTimeout(reading);
  reading = setTimeout(async () => {
    try {
      const { members } = await client.action("members", { room: ROOM });
      at("members").replaceChildren(...members.map(({ name }) => {
        const item = document.createElement("li");
        item.textContent = name;
        return item;
      }));
    } catch (error) {
      tell(error.message);
    }
  }, 50);
}

client.addEventListener("message", ({ detail }) => show(detail.message));
client.addEventListener("presence", readMembers);
client.addEventListener("gap", readMembers);
client.addEventListener("disconnected", () => tell("connection lost"));
client.addEventListener("reconnecting", () => tell("reconnecting"));
client.addEventListener("connected", async () => {
  try {
    await client.action("setName", { name: at("name").value });
    tell("connected");
    readMembers();
  } catch (error) {
    tell(error.message);
  }
});

at("entrance").addEventListener("submit", async (event) => {
  event.preventDefault();
  try { localStorage.setItem("name", at("name").value); } catch { /* private browsing keeps nothing */ }
  try {
    await client.connect();
    await client.action("setName", { name: at("name").value });
    await client.roomAdd(ROOM);
    readMembers();
    at("entrance").hidden = true;
    at("room").hidden = false;
    at("text").focus();
  } catch (error) {
    tell(error.message);
  }
});

at("speak").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = at("text").value;
  at("text").value = "";
  try {
    await client.say(ROOM, text);
  } catch (error) {
    at("text").value = text;
    tell(error.message);
  }
});

try { at("name").value = localStorage.getItem("name") ?? ""; } catch { /* private browsing keeps nothing */ }
