import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const client = (file: string): string => fileURLToPath(new URL(`../clients/js/src/${file}`, import.meta.url));
const SERVER = process.env.TIDINGS_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  resolve: {
    // The longer name first: aliases match by prefix.
    alias: { "@tidings/client/react": client("react/index.ts"), "@tidings/client": client("index.ts") },
    // One copy of React, also for the client's hooks.
    dedupe: ["react", "react-dom"],
  },
  build: {
    outDir: fileURLToPath(new URL("../gateway/dashboard/dist", import.meta.url)),
    emptyOutDir: true,
    target: "es2022",
    // The content security policy allows `data:` only for images.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // "use client" only matters to servers that render.
    rolldownOptions: { checks: { moduleLevelDirective: false } },
  },
  server: {
    proxy: { "/api": SERVER, "/events": SERVER, "/ws": { target: SERVER.replace(/^http/, "ws"), ws: true } },
  },
  // scripts/dashboard.sh reports the build; Vite's list of files would hide that.
  logLevel: "warn",
});
