import js from "@eslint/js";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist", "node_modules", "src/generated"] },
  js.configs.recommended,
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/explicit-function-return-type": ["error", { allowExpressions: true }],
      "@typescript-eslint/consistent-type-definitions": "off", // unions of object types read better as types
      "@typescript-eslint/no-confusing-void-expression": "off", // `return this.#other()` ends a branch in one line
      "@typescript-eslint/non-nullable-type-assertion-style": "off", // it contradicts no-non-null-assertion
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/prefer-promise-reject-errors": "off", // the reason of an AbortSignal is passed on unchanged
      eqeqeq: "error",
      "no-console": "error",
    },
  },
  {
    files: ["**/*.{js,mjs}"],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: { globals: { process: "readonly", URL: "readonly", document: "readonly", window: "readonly" } },
    rules: { "@typescript-eslint/explicit-function-return-type": "off" },
  },
  {
    files: ["test/**", "vitest.config.ts"],
    rules: {
      "@typescript-eslint/no-non-null-assertion": "off", // a test without a match fails by itself
      "@typescript-eslint/explicit-function-return-type": "off",
      "@typescript-eslint/require-await": "off",
      "@typescript-eslint/unbound-method": "off",
    },
  },
);
