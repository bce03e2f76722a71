/** Real gateways, NATS and Redis: `tidings up` on a free port, through a helper of the Python suite. */
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../..", import.meta.url));

export interface Fleet {
  url: string;
  /** `kill`, `stop`, `pause` or `resume` one process, by its name. */
  order(order: "kill" | "stop" | "pause" | "resume", name: string): Promise<void>;
  end(): Promise<void>;
}

/** With an application, if it is named. */
export async function startFleet(settings: Record<string, string> = {}, ...parts: string[]): Promise<Fleet> {
  const python = process.env.TIDINGS_PYTHON ?? join(ROOT, ".venv/bin/python");
  const directory = await mkdtemp(join(tmpdir(), "tidings-js-"));
  const child = spawn(python, ["-m", "tests.support.fleet", directory, ...parts], {
    cwd: ROOT,
    env: { ...process.env, ...settings },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async (): Promise<Record<string, string>> => {
    const line: IteratorResult<string, unknown> = await lines.next();
    if (line.done) throw new Error("the fleet ended");
    const said = JSON.parse(line.value) as Record<string, string>;
    if (said.error) throw new Error(said.error);
    return said;
  };
  const { url = "" } = await answer().catch(async (fault: unknown) => {
    await ended;
    await rm(directory, { recursive: true, force: true });
    throw fault;
  });
  return {
    url,
    async order(order, name) {
      child.stdin.write(`${order} ${name}\n`);
      await answer();
    },
    async end() {
      child.stdin.end();
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Waits until something holds; fails with what is wrong. */
export async function until(holds: () => Promise<boolean>, wrong: () => string, ms: number): Promise<void> {
  const deadline = Date.now() + ms;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`still not so after ${ms} ms: ${wrong()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
