/** A list of rows, each with a title, a bar and a text, the newest first. */
export class Rows {
  #list;
  /** The rows by the ids of their entries. */
  #rows = new Map();

  constructor(list) {
    this.#list = list;
  }

  /** Shows an entry. Names come from clients, so they are inserted as text, never as HTML. */
  show({ id, name, state }, value, max, text) {
    let row = this.#rows.get(id);
    if (!row) {
      row = document.createElement("li");
      row.append(document.createElement("strong"), document.createElement("progress"), document.createElement("span"));
      this.#rows.set(id, row);
      this.#list.prepend(row);
    }
    const [title, bar, words] = row.children;
    title.textContent = name;
    bar.max = max;
    bar.value = value;
    bar.setAttribute("aria-label", name);
    words.textContent = text;
    row.dataset.state = state;
    return row;
  }
}
