// Searches a static site in the browser: as the mirror does, in shards of names that are fetched when asked for.
// The format is told in mirror/site/shards.py.
"use strict";

(() => {
  const NAME = "\xff", OWNER = "\xfe", SHOWN = 50;
  const IS = 0, BEGINS = 1, HAS = 2; // how well a name matches
  const WHITE_SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g;
  const EMPTY = { count: 0, complete: true, rows: [] };

  // The bytes of UTF-8, a letter for each; null for half a letter, which no name has.
  const lettersOf = (text) => {
    try {
      return encodeURIComponent(text).replace(/%(..)/g, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
    } catch { return null; }
  };
  const fileOf = (start) => `search/n${[...start].map((one) => one.charCodeAt(0).toString(16).padStart(2, "0")).join("")}.json.gz`;

  // The last place in a sorted list whose text is not after `text`; -1 for none.
  function lastUpTo(list, text, of) {
    let low = 0, high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (of(list[middle]) <= text) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  // `read` gives the JSON of a file of the site, with `fresh` not out of a cache. `whole`, of a small site, is
  // everything at once, without it.
  class NameSearch {
    constructor(read, whole = null) {
      this.read = read;
      this.whole = whole;
      this.files = new Map();
      this.fresh = false;
    }

    // Answers {count, more, rows}: how many match, or, with `more`, at least how many; the best of them.
    async search(text) {
      try {
        return await this.answered(text);
      } catch (error) {
        if (this.whole) throw error;
        this.files.clear(); // the site may have been made anew, and a cache has files of before
        this.fresh = true;
        try { return await this.answered(text); } finally { this.fresh = false; }
      }
    }

    async answered(text) {
      this.directory = this.whole ?? await this.file("search/directory.json.gz");
      const slash = text.indexOf("/");
      const part = this.normalise(slash < 0 ? text : text.slice(slash + 1));
      const owner = slash < 0 ? "" : this.normalise(text.slice(0, slash));
      return owner ? this.ofOwner(owner, part) : this.named(part);
    }

    // As mirror/search/names.py: NFKC, case folded, each run of white space one "-".
    normalise(text) {
      const { folds } = this.directory;
      const folded = Array.from(text.normalize("NFKC"), (one) => Object.hasOwn(folds, one) ? folds[one] : one.toLowerCase());
      return folded.join("").replace(WHITE_SPACE, "-");
    }

    // Among all repositories, or among those of a large owner, whose texts begin with `of`.
    async named(part, ...of) {
      const inside = await this.find(...of, part);
      if (inside.complete) return answer(this.matching(inside.rows, part));
      if (!part) return { count: inside.count, more: inside.partial, rows: inside.rows };
      const begins = await this.find(...of, NAME, part);
      let best = this.matching(begins.rows, part, BEGINS);
      if (!begins.complete) {
        const exact = await this.find(...of, NAME, part, NAME);
        best = [...this.matching(exact.rows, part, IS), ...best];
      }
      const rows = [...new Map([...best, ...this.matching(inside.rows, part)].map((row) => [row[0] + "\0" + (row[4] ?? ""), row])).values()];
      return { count: inside.count, more: inside.partial, rows };
    }

    async ofOwner(owner, part) {
      const { large = {} } = this.directory, letters = lettersOf(owner) ?? "";
      if (Object.hasOwn(large, letters)) return large[letters] === this.directory.repositories ? this.named(part) : this.named(part, OWNER, owner, NAME);
      let found = await this.find(OWNER, owner, NAME), is = (name) => name === owner;
      const filtered = (rows) => rows.filter((row) => is(this.normalise(ownerOf(row))));
      if (found.complete) found = { ...found, rows: filtered(found.rows) };
      if (found.complete && !found.rows.length) {
        is = (name) => name.startsWith(owner);
        found = await this.find(OWNER, owner);
        found = { ...found, rows: filtered(found.rows) };
      }
      if (found.complete) return answer(this.matching(found.rows, part));
      if (!part) return { count: found.count, more: found.partial, rows: found.rows };
      const inside = await this.find(part);
      const rows = this.matching(filtered(inside.complete ? inside.rows : [...found.rows, ...inside.rows]), part);
      const known = [...new Map(rows.map((row) => [row[0] + "\0" + (row[4] ?? ""), row])).values()];
      return { count: known.length, more: !inside.complete, rows: known };
    }

    // The rows whose name or slug has the part: first those that are it, then those that begin with it, the others;
    // none of a worse class than `worst`.
    matching(rows, part, worst = HAS) {
      if (!part) return rows;
      const classes = [[], [], []];
      for (const row of rows) {
        const names = [this.normalise(row[0].slice(row[0].indexOf("/") + 1)), this.normalise(row[1] || "")];
        if (names.includes(part)) classes[IS].push(row);
        else if (names.some((name) => name.startsWith(part))) classes[BEGINS].push(row);
        else if (names.some((name) => name.includes(part))) classes[HAS].push(row);
      }
      return classes.slice(0, worst + 1).flat();
    }

    // Looks up what begins with some text: {count, complete, partial, rows}. `complete` rows may be of others too.
    async find(...pieces) {
      if (this.whole) return { complete: true, rows: this.whole.rows };
      const letters = pieces.map((piece) => piece === NAME || piece === OWNER ? piece : lettersOf(piece));
      if (letters.includes(null)) return EMPTY;
      const text = letters.join(""), { starts } = this.directory;
      const at = lastUpTo(starts, text, (start) => start);
      if (at < 0) return EMPTY;
      let shard = await this.file(fileOf(starts[at]));
      // A directory from before the site was made anew: the shard may end earlier than it did.
      while (shard.until !== null && text >= shard.until) shard = await this.file(fileOf(shard.until));
      const [path, count, places] = shard.entries[lastUpTo(shard.entries, text, (entry) => entry[0])] ?? [];
      if (path === undefined || !(path === text || (count === null || count < 0) && text.startsWith(path))) return EMPTY;
      const rows = places.map((place) => shard.rows[place]);
      if (count === null) return { complete: true, rows };
      return { count: count < 0 ? rows.length : count, complete: false, partial: count < 0, rows };
    }

    file(path) {
      if (!this.files.has(path)) {
        const asked = this.read(path, this.fresh);
        asked.catch(() => this.files.delete(path)); // asked again next time
        this.files.set(path, asked);
      }
      return this.files.get(path);
    }
  }

  const answer = (rows) => ({ count: rows.length, more: false, rows });
  const ownerOf = (row) => row[0].slice(0, row[0].indexOf("/"));
  globalThis.NameSearch = NameSearch;
  if (typeof document === "undefined") return;

  // The page.
  const form = document.getElementById("search"), input = form.elements.q;
  const summary = document.querySelector("#results .summary"), list = document.querySelector("#results ol");
  const top = form.dataset.top;

  async function readJson(path, fresh = false) {
    const response = await fetch(top + path, fresh ? { cache: "reload" } : {});
    if (!response.ok) throw new Error(`the site answered ${response.status} for ${path}`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    // Some servers say that it is compressed, and the browser has unpacked it then.
    const packed = bytes[0] === 0x1f && bytes[1] === 0x8b;
    const stream = new Blob([bytes]).stream();
    return new Response(packed ? stream.pipeThrough(new DecompressionStream("gzip")) : stream).json();
  }

  function readScript() {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `${top}search/names.js`;
      script.onload = () => resolve(globalThis.mirrorNames);
      script.onerror = () => reject(new Error("so many names are searched only where a web server sends them; try python3 -m http.server in the folder of the site"));
      document.head.append(script);
    });
  }

  let names = null;
  async function opened() {
    names ??= location.protocol === "file:" ? new NameSearch(null, await readScript()) : new NameSearch(readJson);
    return names;
  }

  function element(name, text = "", className = "") {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function line([full_name, name = "", followers = 0, forks = 0, place = "", shown = "", shownName = ""]) {
    const owner = full_name.slice(0, full_name.indexOf("/")), text = shown || full_name, slash = text.indexOf("/") + 1;
    const link = element("a"), bdi = element("bdi"), title = element("h2"), facts = element("p", "", "facts"), hit = element("article", "", "hit");
    link.href = top + (place || `r/${owner.slice(0, 2).replace(/\.+$/, "")}/${full_name}.html`);
    bdi.append(element("span", text.slice(0, slash), "of"), text.slice(slash));
    link.append(bdi);
    title.append(link);
    hit.append(title);
    if (name) {
      const called = element("p", "", "quiet called");
      called.append(element("bdi", shownName || name));
      hit.append(called);
    }
    if (followers) facts.append(element("span", counted(followers, "follower", "followers")));
    if (forks) facts.append(element("span", counted(forks, "fork", "forks")));
    if (followers || forks) hit.append(facts);
    const item = element("li");
    item.append(hit);
    return item;
  }

  const counted = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

  let turn = 0;
  async function show() {
    const mine = ++turn, text = input.value.trim();
    try {
      const found = await (await opened()).search(text);
      if (mine !== turn) return;
      const rows = found.rows.slice(0, SHOWN);
      list.replaceChildren(...rows.map(line));
      summary.replaceChildren(
        found.more ? "More than " : "", element("b", found.count.toLocaleString("en")), found.count === 1 ? " repository" : " repositories",
        text ? " with " : "", text ? element("bdi", `“${text}”`) : "", text ? " in the name" : "",
        rows.length < found.count ? `; the ${rows.length} best of them, write more letters to see others` : "");
    } catch (error) {
      if (mine !== turn) return;
      list.replaceChildren();
      summary.textContent = `The search does not work: ${error.message}.`;
    }
  }

  let timer = 0;
  const address = () => history.replaceState(null, "", input.value ? `?${new URLSearchParams({ q: input.value })}` : location.pathname);
  form.addEventListener("submit", (event) => { event.preventDefault(); address(); show(); });
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { address(); show(); }, 120);
  });
  input.value = new URLSearchParams(location.search).get("q") ?? "";
  show();
})();
