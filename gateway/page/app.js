// What the page shows, put together. Everything that comes from elsewhere is inserted as text.

import { Charts } from "/page/charts.js";
import { Connection } from "/page/connection.js";
import { Room } from "/page/room.js";

const LATE_MS = 5_000;
const SHOWN_PEOPLE = 200;

const element = (id) => document.getElementById(id);
const charts = new Charts(element("metrics"));
const people = new Map();
const alerts = new Map();
let myId = "";
let heardMetricsAt = 0;

const connection = new Connection({ channels: ["presence", "metrics", "alerts"], onMessage, onState });
const room = new Room({
  joinForm: element("join-form"),
  sendForm: element("send-form"),
  list: element("messages"),
  connection,
});

function onState(state, detail) {
  const shown = element("state");
  shown.dataset.state = state;
  element("token-form").hidden = state !== "unauthorized";
  if (state === "open") {
    myId = detail.userId;
    shown.textContent = `Connected to ${detail.gateway}`;
    element("name").value = detail.username;
    room.onOpen();
    return;
  }
  room.onClosed();
  shown.textContent = {
    connecting: "Connecting …",
    waiting: `Lost; again in ${detail} s`,
    unauthorized: detail ?? "Not let in",
    ended: `Ended: ${detail}. Reload to come back.`,
  }[state];
}

function onMessage(message) {
  switch (message.type) {
    case "initial_state":
      charts.reset(message.history);
      alerts.clear();
      for (const alert of message.alerts) alerts.set(alert.id, alert);
      showAlerts();
      break;
    case "metrics_update":
      heardMetricsAt = Date.now();
      charts.add(message.data);
      break;
    case "alert":
      alerts.set(message.data.id, message.data);
      showAlerts();
      break;
    case "alert_resolved":
      alerts.delete(message.data.id);
      showAlerts();
      break;
    default:
      onPresence(message);
      room.onMessage(message);
  }
}

function onPresence(message) {
  if (message.room !== undefined) return; // of one room: this list is of everyone
  switch (message.type) {
    case "presence_list":
      if (!message.part) people.clear(); // else more of a long list
      for (const user of message.users) people.set(user.userId, user);
      break;
    case "user_online":
      people.set(message.user.userId, message.user);
      break;
    case "user_offline":
      people.delete(message.userId);
      break;
    case "status_changed":
      if (people.has(message.userId)) people.get(message.userId).status = message.status;
      break;
    default:
      return;
  }
  showPeople();
}

function showPeople() {
  const sorted = [...people.values()].sort((a, b) => a.username.localeCompare(b.username));
  const lines = sorted.slice(0, SHOWN_PEOPLE).map((user) => {
    const status = document.createElement("span");
    status.className = "status";
    status.textContent = user.status;
    return listItem("", user.username, user.userId === myId ? " (you) " : " ", status);
  });
  if (sorted.length > SHOWN_PEOPLE) lines.push(listItem("note", `and ${sorted.length - SHOWN_PEOPLE} more`));
  element("people").replaceChildren(...lines);
  element("people-count").textContent = String(people.size);
}

function showAlerts() {
  const lines = [...alerts.values()]
    .sort((a, b) => b.timestamp - a.timestamp)
    .map((alert) => listItem(alert.type === "critical" ? "critical" : "warning", `${alert.type}: ${alert.message}`));
  element("alerts").replaceChildren(...(lines.length ? lines : [listItem("note", "None.")]));
}

function listItem(className, ...parts) {
  const item = document.createElement("li");
  item.className = className;
  item.append(...parts); // strings become text nodes
  return item;
}

element("name-form").addEventListener("submit", (event) => {
  event.preventDefault();
  connection.rename(element("name").value.trim());
});

element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  connection.authorize(element("token").value.trim());
  element("token").value = "";
});

setInterval(() => {
  const late = heardMetricsAt && Date.now() - heardMetricsAt > LATE_MS;
  element("freshness").textContent = late ? `${Math.round((Date.now() - heardMetricsAt) / 1000)} s old` : "";
}, 1000);

showAlerts();
connection.open();
