// One WebSocket to the gateway that comes back: with full jitter, as the same user, and not when told to stay away.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
const NO_RECONNECT_FROM = 4500; // close codes 4500-4999 say: do not come back

export class Connection {
  // `onMessage(message)` gets every message of the server, `onState(state, detail)` one of
  // connecting, open, waiting, ended, unauthorized.
  constructor({ channels, onMessage, onState }) {
    this.channels = channels;
    this.onMessage = onMessage;
    this.onState = onState;
    this.username = sessionStorage.getItem("tidings.username") ?? "";
    this.token = ""; // in memory alone
    this.attempts = 0;
    this.lastHeard = 0;
    this.heartbeatMs = 25_000;
    setInterval(() => this.#watch(), 5_000);
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
  }

  rename(username) {
    this.username = username;
    sessionStorage.setItem("tidings.username", username);
    this.reopen();
  }

  authorize(token) {
    this.token = token;
    this.reopen();
  }

  reopen() {
    this.attempts = 0;
    this.#drop();
    this.open();
  }

  async open() {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.onState("connecting");
    const query = new URLSearchParams({ channels: this.channels.join(",") });
    if (this.username) query.set("username", this.username);
    const session = sessionStorage.getItem("tidings.session");
    if (session) query.set("session", session);
    if (this.token) {
      const ticket = await this.#ticket();
      if (!ticket) return;
      query.set("ticket", ticket);
    }
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws?${query}`, "tidings.v1.json");
    this.socket = socket;
    this.mayReturn = true;
    this.lastHeard = Date.now();
    socket.onmessage = (event) => this.socket === socket && this.#hear(JSON.parse(event.data));
    socket.onclose = (event) => this.socket === socket && this.#lost(event);
  }

  // Returns whether it went out: while the connection is away nothing is kept for later.
  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  #hear(message) {
    this.lastHeard = Date.now();
    if (message.type === "welcome") {
      this.attempts = 0;
      this.welcomed = true;
      this.heartbeatMs = message.heartbeatInterval;
      if (message.session) sessionStorage.setItem("tidings.session", message.session);
      this.onState("open", message);
    } else if (message.type === "disconnect") {
      this.mayReturn = message.reconnect;
      this.retryAfterMs = message.retryAfterMs;
    }
    this.onMessage(message);
  }

  async #lost(event) {
    const wasOpen = this.welcomed;
    this.#drop();
    if (!this.mayReturn || event.code >= NO_RECONNECT_FROM) {
      this.onState("ended", event.reason || `closed with ${event.code}`);
    } else if (!wasOpen && (await this.#unauthorized())) {
      this.onState("unauthorized");
    } else {
      this.#wait();
    }
  }

  #wait() {
    const ceiling = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.attempts++);
    const delay = (this.retryAfterMs ?? 0) + Math.random() * ceiling;
    this.retryAfterMs = undefined;
    this.onState("waiting", Math.ceil(delay / 1000));
    this.timer = setTimeout(() => this.open(), delay);
  }

  #drop() {
    clearTimeout(this.timer);
    this.timer = undefined;
    const socket = this.socket;
    this.socket = undefined;
    this.welcomed = false;
    socket?.close(1000);
  }

  // A refused upgrade tells a page nothing; the same question over HTTP has an answer.
  async #unauthorized() {
    try {
      return (await fetch("/api/presence?limit=1")).status === 401;
    } catch {
      return false; // no server at all
    }
  }

  async #ticket() {
    try {
      const answer = await fetch("/api/tickets", { method: "POST", headers: { Authorization: `Bearer ${this.token}` } });
      if (answer.ok) return (await answer.json()).ticket;
      if (answer.status === 401) {
        this.token = "";
        this.onState("unauthorized", (await answer.json()).message);
        return undefined;
      }
    } catch {
      // no server at all: as a lost connection
    }
    this.#wait();
    return undefined;
  }

  #watch() {
    if (!this.welcomed) return;
    const silence = Date.now() - this.lastHeard;
    if (silence > 2.5 * this.heartbeatMs) {
      this.#drop(); // half open: nobody is there any more
      this.#wait();
    } else if (silence > this.heartbeatMs) {
      this.send({ type: "heartbeat" });
    }
  }

  #hurry() {
    if (this.timer !== undefined) this.open();
  }
}
