// Serves the examples: `npm run examples [-- --server http://127.0.0.1:8080 --port 5180]`, beside a running gateway.
// Pages are bundled on request; all other requests are proxied to the gateway, so that everything has one origin.
import { readFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";

const FOLDER = fileURLToPath(new URL(".", import.meta.url));
const EXAMPLES = { chat: "main.ts", cursors: "main.ts", bell: "main.ts", board: "main.tsx" };
const { values } = parseArgs({
  options: { server: { type: "string", default: "http://127.0.0.1:8080" }, port: { type: "string", default: "5180" } },
});
const gateway = new URL(values.server);

export async function bundle(name) {
  const { outputFiles } = await build({
    entryPoints: [`${FOLDER}/${name}/${EXAMPLES[name]}`],
    alias: { "@tidings/client": `${FOLDER}/../src/index.ts`, "@tidings/client/react": `${FOLDER}/../src/react/index.ts` },
    bundle: true,
    format: "esm",
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"production"' },
    write: false,
  });
  return outputFiles[0].text;
}

async function page(path) {
  const [, name, file = ""] = /^\/(\w+)\/(index\.html|main\.js)?$/.exec(path) ?? [];
  if (path === "/") return ["text/html", Object.keys(EXAMPLES).map((each) => `<p><a href="/${each}/">${each}</a>`).join("\n")];
  if (path === "/style.css") return ["text/css", await readFile(`${FOLDER}/style.css`, "utf8")];
  if (!Object.hasOwn(EXAMPLES, name ?? "")) return undefined;
  if (file === "main.js") return ["text/javascript", await bundle(name)];
  return ["text/html", await readFile(`${FOLDER}/${name}/index.html`, "utf8")];
}

const toGateway = ({ method, url, headers }) => ({ host: gateway.hostname, port: gateway.port, method, path: url, headers });

const server = http.createServer(async (request, response) => {
  try {
    const found = await page(new URL(request.url, "http://page").pathname);
    if (found) return response.writeHead(200, { "content-type": `${found[0]}; charset=utf-8` }).end(found[1]);
  } catch (fault) {
    return response.writeHead(500).end(String(fault));
  }
  const onward = http.request(toGateway(request), (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on("error", () => response.writeHead(502).end("no gateway there; start one with `make run`"));
  response.on("close", () => onward.destroy());
  request.pipe(onward);
});

server.on("upgrade", (request, socket, head) => {
  const onward = net.connect(Number(gateway.port), gateway.hostname, () => {
    const lines = [];
    for (let at = 0; at < request.rawHeaders.length; at += 2) lines.push(`${request.rawHeaders[at]}: ${request.rawHeaders[at + 1]}`);
    onward.write(`GET ${request.url} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`);
    onward.write(head);
    socket.pipe(onward).pipe(socket);
  });
  onward.on("error", () => socket.destroy());
  socket.on("error", () => onward.destroy());
});

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  server.listen(Number(values.port), "127.0.0.1", () => process.stdout.write(`http://127.0.0.1:${server.address().port}/\n`));
}
