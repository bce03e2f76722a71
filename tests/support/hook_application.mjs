// The application of hook_application.py in Node, with nothing but its standard library: `node hook_application.mjs PORT`.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const SECRET = "the-application-knows-this";
const MAX_AGE_S = 60;
let asked = [];

function isSigned(body, headers) {
  const stamp = headers["tidings-timestamp"] ?? "";
  if (!/^\d+$/.test(stamp) || Math.abs(Date.now() / 1000 - Number(stamp)) > MAX_AGE_S) return false;
  const right = Buffer.from("v1=" + createHmac("sha256", SECRET).update(`${stamp}.`).update(body).digest("hex"));
  return (headers["tidings-signature"] ?? "").split(",").some((given) => {
    const bytes = Buffer.from(given);
    return bytes.length === right.length && timingSafeEqual(bytes, right);
  });
}

async function decide(question) {
  switch (question.hook) {
    case "connect": {
      const user = /(?:^|;\s*)sessionid=([^;]+)/.exec(question.headers.cookie ?? "")?.[1];
      if (!user) return { refuse: { code: "login_required", message: "log in first" } };
      return { userId: user, username: user[0].toUpperCase() + user.slice(1) };
    }
    case "join":
      if (question.room.startsWith("closed"))
        return { refuse: { code: "not_a_friend", message: "this room is for friends" } };
      return {};
    case "publish": {
      const content = Object(question.content);
      await sleep(content.delayMs ?? 0);
      if ("refuse" in content) return { refuse: { code: content.refuse, message: "not here" } };
      if ("replace" in content) return { content: content.replace };
      return "skip" in content ? { skip: true } : {};
    }
    case "rpc":
      if (question.method === "echo") return { data: question.data };
      return { refuse: { code: "unknown_method", message: "no such method" } };
  }
}

createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts);
  if (request.url === "/control") {
    if ("asked" in JSON.parse(body)) asked = [];
    response.end(JSON.stringify({ asked, mostUnderWay: 0 }));
  } else if (!isSigned(body, request.headers)) {
    response.writeHead(401).end();
  } else {
    const question = JSON.parse(body);
    asked.push(question);
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(await decide(question)));
  }
}).listen(Number(process.argv[2]), "127.0.0.1");
