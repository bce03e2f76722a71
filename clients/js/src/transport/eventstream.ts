/** Incremental parser of `text/event-stream` (WHATWG HTML, "Server-sent events"). */

export interface StreamEvent {
  type: string;
  data: string;
  id: string | undefined;
}

export class EventStreamParser {
  /** The server's `retry:`, in milliseconds. */
  retryMs: number | undefined;
  #rest = "";
  #afterCr = false;
  #started = false;
  #type = "";
  #data: string[] = [];
  #id: string | undefined;

  /** Parses the next piece and returns the events that it completes. */
  push(piece: string): StreamEvent[] {
    let text = this.#rest + piece;
    if (!this.#started && text) {
      this.#started = true;
      text = text.replace(/^\uFEFF/, "");
    }
    if (this.#afterCr && text.startsWith("\n")) text = text.slice(1);
    if (text) this.#afterCr = false;
    const lines = text.split(/\r\n|[\r\n]/);
    this.#afterCr = text.endsWith("\r"); // the LF of a CRLF may be in the next piece
    this.#rest = lines.pop() ?? "";
    return lines.map((line) => this.#line(line)).filter((event) => event !== undefined);
  }

  #line(line: string): StreamEvent | undefined {
    if (line === "") return this.#dispatch();
    const [, field = "", value = ""] = /^([^:]*):? ?([^]*)$/.exec(line) ?? [];
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
    return undefined;
  }

  #dispatch(): StreamEvent | undefined {
    const event = { type: this.#type || "message", data: this.#data.join("\n"), id: this.#id };
    const complete = this.#data.length > 0;
    this.#type = "";
    this.#data = [];
    this.#id = undefined;
    return complete ? event : undefined;
  }
}
