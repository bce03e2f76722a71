import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const src = (file: string) => fileURLToPath(new URL(`src/${file}`, import.meta.url));

export default defineConfig({
  resolve: {
    // Longer names first: aliases match by prefix.
    alias: {
      "@tidings/client/react": src("react/index.ts"),
      "@tidings/client/msgpack": src("msgpack.ts"),
      "@tidings/client": src("index.ts"),
    },
  },
  test: {
    include: ["test/**/*.test.{ts,tsx}"],
    // Real gateways start within seconds, and share the machine with the suites beside them.
    testTimeout: 30_000,
    hookTimeout: 120_000,
    restoreMocks: true,
  },
});
