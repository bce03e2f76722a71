/** A proxy in front of a server that lets HTTP pass, and WebSockets only as it likes. */
import { createServer, connect, type Server, type Socket } from "node:net";

export class BlockingProxy {
  /** What becomes of upgrades: they pass, are answered 403, or are never answered. */
  upgrades: "passed" | "refused" | "unanswered" = "passed";
  /** How many were refused. */
  refused = 0;
  readonly #sockets = new Set<Socket>();
  readonly #webSockets = new Map<Socket, { swallow: boolean }>();
  #server: Server | undefined;

  async start(target: string): Promise<string> {
    const { hostname, port } = new URL(target);
    const server = (this.#server = createServer((client) => this.#serve(client, Number(port), hostname)));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  }

  /** Messages of the server over WebSocket are lost from now on. */
  swallow(): void {
    for (const state of this.#webSockets.values()) state.swallow = true;
  }

  /** Cuts all WebSockets. */
  cut(): void {
    for (const socket of this.#webSockets.keys()) socket.destroy();
  }

  end(): void {
    this.#server?.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #serve(client: Socket, port: number, host: string): void {
    const server = connect(port, host);
    const state = { swallow: false };
    for (const [one, other] of [[client, server], [server, client]] as const) {
      this.#sockets.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        other.destroy();
        this.#sockets.delete(one);
        this.#webSockets.delete(one);
      });
    }
    client.on("data", (data) => {
      if (!data.includes("Upgrade: websocket")) return void server.write(data);
      if (this.upgrades === "refused") this.refused++;
      if (this.upgrades === "refused") client.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
      if (this.upgrades !== "passed") return;
      this.#webSockets.set(client, state);
      server.write(data);
    });
    server.on("data", (data) => {
      if (!state.swallow) client.write(data);
    });
  }
}
