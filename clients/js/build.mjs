// Bundles the entry points into dist/, with shared code in chunks; `tsc` adds the declarations.
import { build } from "esbuild";

export const options = {
  entryPoints: { index: "src/index.ts", msgpack: "src/msgpack.ts", react: "src/react/index.ts" },
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  platform: "neutral",
  external: ["react"],
  jsx: "automatic",
  minify: true,
  chunkNames: "chunks/[hash]",
  sourcemap: true,
  outdir: "dist",
};

if (process.argv[1] === new URL(import.meta.url).pathname) await build(options);
