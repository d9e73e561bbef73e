import { Rows } from "/rows.js";

const rows = new Rows(document.getElementById("exports"));

const STATES = {
  waiting: () => "waits for a node",
  running: ({ page, pages, node }) => `page ${page} of ${pages}, on ${node}`,
  done: ({ pages }) => `done, ${pages} pages`,
  failed: () => "failed",
};

/** Shows what is known of an export. */
export function showExport(progress) {
  const { state, page, pages } = progress;
  const text = (STATES[state] ?? (() => state))(progress);
  rows.show(progress, state === "done" ? pages : page, pages, text);
}
