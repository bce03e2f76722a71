// One room: join it, say something, see what others say; joined again after a reconnect where it was left.

const KEPT_LINES = 300;

export class Room {
  constructor({ joinForm, sendForm, list, connection }) {
    this.connection = connection;
    this.list = list;
    this.roomField = joinForm.elements.room;
    this.textField = sendForm.elements.text;
    this.sendForm = sendForm;
    joinForm.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#join(this.roomField.value.trim());
    });
    sendForm.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#say(this.textField.value.trim());
    });
  }

  // After each welcome: the server forgot us, we did not forget the room.
  onOpen() {
    if (this.wanted) this.#ask();
  }

  onClosed() {
    this.#allow(false);
  }

  onMessage(message) {
    switch (message.type) {
      case "joined_room":
        this.#joined(message);
        break;
      case "room_message":
        if (message.room === this.room) this.#received(message);
        break;
      case "user_joined":
      case "user_left":
        if (message.room === this.room) {
          this.#note(`${message.username} ${message.type === "user_joined" ? "came in" : "left"}`);
        }
        break;
      case "error":
        if (message.id?.startsWith("room-")) this.#note(`Not done: ${message.message}`);
        break;
    }
  }

  #join(room) {
    if (!room) return;
    if (this.wanted && this.wanted !== room) this.connection.send({ type: "leave_room", room: this.room ?? this.wanted });
    if (this.wanted !== room) {
      this.position = undefined;
      this.list.replaceChildren();
    }
    this.wanted = room;
    this.#ask();
  }

  #ask() {
    const since = this.position && { since: this.position };
    this.connection.send({ type: "join_room", id: `room-${crypto.randomUUID?.() ?? Math.random()}`, room: this.wanted, ...since });
  }

  #joined(message) {
    const again = this.room === message.room;
    this.room = message.room; // as the server spells it
    for (const missed of message.missed ?? []) this.#received(missed);
    if (again && message.recovered === false) this.#note("Some messages may be missing here.");
    if (message.epoch !== undefined) this.position = { epoch: message.epoch, seq: message.seq };
    if (!again) this.#note(`You are in ${message.room}.`);
    this.#allow(true);
  }

  #say(text) {
    if (!text) return;
    const id = `room-${crypto.randomUUID?.() ?? Math.random()}`;
    if (this.connection.send({ type: "room_message", id, room: this.room, content: text, echo: true })) {
      this.textField.value = "";
    }
  }

  #received(message) {
    if (this.position && message.seq !== undefined) this.position = { ...this.position, seq: message.seq };
    const line = document.createElement("li");
    const time = document.createElement("time");
    time.dateTime = new Date(message.timestamp).toISOString();
    time.textContent = new Date(message.timestamp).toLocaleTimeString();
    const from = document.createElement("span");
    from.className = "from";
    from.textContent = message.username;
    const text = typeof message.content === "string" ? message.content : JSON.stringify(message.content);
    line.append(time, " ", from, ` ${text}`);
    this.#append(line);
  }

  #note(text) {
    const line = document.createElement("li");
    line.className = "note";
    line.textContent = text;
    this.#append(line);
  }

  #append(line) {
    const list = this.list;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(line);
    while (list.childElementCount > KEPT_LINES) list.firstElementChild.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  #allow(allowed) {
    for (const element of this.sendForm.elements) element.disabled = !allowed;
  }
}
