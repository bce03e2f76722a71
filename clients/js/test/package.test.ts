// What is shipped: its size, what it depends on, and the contract it was made from.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { Ajv } from "ajv";
import addFormats from "ajv-formats";
import { build } from "esbuild";
import { describe, expect, it } from "vitest";

const FOLDER = fileURLToPath(new URL("..", import.meta.url));
const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const KB = 1024;

async function gzipped(...entries: string[]): Promise<number> {
  const { outputFiles } = await build({
    stdin: { contents: entries.map((entry) => `export * from "./src/${entry}";`).join("\n"), resolveDir: FOLDER },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    external: ["react"],
    write: false,
  });
  return gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
}

describe("the bundle", () => {
  it("is below 14.8 KB", async () => {
    expect(await gzipped("index.ts")).toBeLessThan(14.8 * 1000);
  });

  it("adds little for MessagePack, which is an import of its own", async () => {
    expect((await gzipped("index.ts", "msgpack.ts")) - (await gzipped("index.ts"))).toBeLessThan(1.5 * KB);
  });

  it("adds little for React", async () => {
    expect((await gzipped("index.ts", "react/index.ts")) - (await gzipped("index.ts"))).toBeLessThan(2 * KB);
  });
});

describe("the package", () => {
  const manifest = JSON.parse(readFileSync(`${FOLDER}/package.json`, "utf8")) as Record<string, object>;

  it("depends on nothing", () => {
    expect(manifest.dependencies).toBeUndefined();
    expect(Object.keys(manifest.peerDependencies ?? {})).toEqual(["react"]);
  });

  it("ships what is built, and under which terms", () => {
    const listed = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: FOLDER, encoding: "utf8" });
    const [{ files }] = JSON.parse(listed) as [{ files: { path: string }[] }];
    const paths = files.map(({ path }) => path).filter((path) => !path.startsWith("dist/"));
    expect(paths.sort()).toEqual(["LICENSE", "README.md", "package.json"]);
    expect(readFileSync(`${FOLDER}/LICENSE`, "utf8")).toBe(readFileSync(`${ROOT}/LICENSE`, "utf8"));
  });

  it("names no host in its lock", () => {
    expect(readFileSync(`${FOLDER}/package-lock.json`, "utf8")).not.toContain('"resolved"');
  });
});

it("the AsyncAPI document is valid", () => {
  const python = process.env.TIDINGS_PYTHON ?? `${ROOT}/.venv/bin/python`;
  const script = "import json; from gateway.contracts.asyncapi import asyncapi; print(json.dumps(asyncapi()))";
  const document = JSON.parse(execFileSync(python, ["-c", script], { cwd: ROOT, encoding: "utf8" })) as unknown;
  const schema = createRequire(import.meta.url)("@asyncapi/specs/schemas/3.0.0-without-$id.json") as object;
  const ajv = new Ajv({ strict: false, allErrors: true, unicodeRegExp: false });
  (addFormats as unknown as (ajv: Ajv) => void)(ajv);
  const validate = ajv.compile(schema);
  expect(validate(document), JSON.stringify(validate.errors?.slice(0, 5), undefined, 1)).toBe(true);
});
