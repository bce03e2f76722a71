import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const client = (file: string): string => fileURLToPath(new URL(`../clients/js/src/${file}`, import.meta.url));
const SERVER = process.env.TIDINGS_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  resolve: {
    // The longer name first: the shorter one is its beginning.
    alias: { "@tidings/client/react": client("react/index.ts"), "@tidings/client": client("index.ts") },
    // One React, ours, also for the client's hooks.
    dedupe: ["react", "react-dom"],
  },
  build: {
    outDir: fileURLToPath(new URL("../gateway/dashboard/dist", import.meta.url)),
    emptyOutDir: true,
    target: "es2022",
    // The content policy allows no `data:` but for images.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // "use client" means something to servers that render; there is none here.
    rolldownOptions: { checks: { moduleLevelDirective: false } },
  },
  server: {
    proxy: { "/api": SERVER, "/events": SERVER, "/ws": { target: SERVER.replace(/^http/, "ws"), ws: true } },
  },
  // Built by a script that says what it does; Vite's own list of files would hide it.
  logLevel: "warn",
});
