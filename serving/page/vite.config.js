// Builds the page into genrec/serving/page/: index.html, page.js, page.css, page.svg (icon) and page.txt (licences of what is built
// in). `npm run dev` serves the sources and asks a server on port 8000.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { defineConfig } from "vite";

const OUT = "../../genrec/serving/page";

/** SHA-256 over names and contents of all sources: tests/serving/test_page_files.py computes it again, without npm. */
export function sourcesHash() {
  const names = ["index.html", "package.json", "package-lock.json", "vite.config.js"];
  names.push(...readdirSync("src").map((name) => `src/${name}`));
  const hash = createHash("sha256");
  for (const name of names.sort()) hash.update(`${name}\n`).update(readFileSync(name)).update("\n");
  return hash.digest("hex");
}

const files = {
  name: "genrec-files",
  transformIndexHtml: (html) => html.replace("%SOURCES%", sourcesHash()),
  generateBundle() {
    this.emitFile({ type: "asset", fileName: "page.svg", source: readFileSync("src/icon.svg") });
    const licenses = ["preact", "@preact/signals", "@preact/signals-core"].map(
      (name) => `${name}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf-8")}`,
    );
    this.emitFile({ type: "asset", fileName: "page.txt", source: licenses.join("\n\n") });
  },
};

export default defineConfig({
  base: "./",
  plugins: [files],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false, // one script: nothing to load ahead
    rolldownOptions: { output: { entryFileNames: "page.js", assetFileNames: "page[extname]" } },
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8000" } },
});
