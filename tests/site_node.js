// Asks the search of a site under Node: node site_node.js FOLDER, questions as JSON on standard input.
// For each it prints the first twenty, the count, and what a browser that comes for the first time would fetch.
"use strict";
const fs = require("node:fs"), path = require("node:path"), zlib = require("node:zlib");
const [folder, way] = process.argv.slice(2);
const script = fs.readdirSync(path.join(folder, "assets")).find((name) => name.startsWith("site-search."));
require(path.resolve(folder, "assets", script));
if (way === "disk") require(path.resolve(folder, "search/names.js"));

async function asked(text) {
  let requests = 0, bytes = 0;
  const search = new NameSearch(async (name, fresh) => {
    const cached = way === "cached" && !fresh && name === "search/directory.json.gz";
    const packed = fs.readFileSync(path.join(folder, cached ? "search/old.json.gz" : name));
    requests += 1;
    bytes += packed.length;
    return JSON.parse(zlib.gunzipSync(packed));
  }, globalThis.mirrorNames ?? null);
  const { count, more, rows, corrected = "" } = await search.search(text);
  return { count, more, corrected, names: rows.slice(0, 20).map((row) => row[0]), requests, bytes };
}

(async () => {
  const answers = [];
  for (const text of JSON.parse(fs.readFileSync(0, "utf-8"))) answers.push(await asked(text));
  console.log(JSON.stringify(answers));
})();
