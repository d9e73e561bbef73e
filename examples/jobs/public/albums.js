import { Rows } from "/rows.js";

const rows = new Rows(document.getElementById("albums"));
const news = document.getElementById("news");

/** How many jobs of each album have ended, as far as the page knows; `Infinity` once it is over. */
const known = new Map();

const SUMS = {
  making: ({ made, failed, photos }) => `${made + failed} of ${photos.length} photos, ${failed} failed`,
  done: ({ made, photos }) => `done, ${made} of ${photos.length} thumbnails`,
  expired: ({ made, photos }) => `its time was up, ${made} of ${photos.length} thumbnails`,
};

/** Shows what is known of an album. Messages of two nodes may overtake each other, and those of its end may come twice. */
export function showAlbum(album) {
  const { id, name, state, made, failed, photos, missing } = album;
  const before = known.get(id);
  const ended = state === "making" ? made + failed : Infinity;
  if (ended <= before) return;
  known.set(id, ended);
  const text = [SUMS[state](album), missing.length > 0 && `without ${missing.join(", ")}`].filter(Boolean).join(", ");
  const row = rows.show(album, Math.min(ended, photos.length), photos.length, text);
  if (state === "making") return;
  row.append(thumbnails(id, photos.filter((photo) => !missing.includes(photo))));
  if (before === undefined) return; // it was over when the page came
  const line = document.createElement("li");
  line.textContent = `${name}: ${text}`;
  news.append(line);
}

function thumbnails(id, photos) {
  const all = document.createElement("div");
  for (const photo of photos) {
    const image = document.createElement("img");
    image.src = `/api/albums/${id}/${encodeURIComponent(photo)}`;
    image.alt = photo;
    all.append(image);
  }
  return all;
}
