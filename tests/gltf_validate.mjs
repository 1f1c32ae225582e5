// SPDX-License-Identifier: Apache-2.0
// node tests/gltf_validate.mjs FILE...: the Khronos validator's report of each, as one line of JSON.
// gltf-validator is looked for in BOZZETTO_NODE_MODULES, or in .node/node_modules of the repository.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = process.env.BOZZETTO_NODE_MODULES || join(root, ".node", "node_modules");
const validator = createRequire(join(resolve(modules), "anchor.js"))("gltf-validator");

for (const file of process.argv.slice(2)) {
  const report = await validator.validateBytes(new Uint8Array(readFileSync(file)), { uri: file, maxIssues: 100 });
  const { numErrors, numWarnings, numInfos, numHints, messages } = report.issues;
  console.log(JSON.stringify({ file, version: validator.version(), numErrors, numWarnings, numInfos, numHints, messages, info: report.info }));
}
