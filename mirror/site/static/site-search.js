// Searches a static site in the browser: as the mirror does, in shards of names that are fetched when asked for.
// The format is told in mirror/site/shards.py.
"use strict";

(() => {
  const NAME = "\xff", OWNER = "\xfe", GROUP = "\xfd", SHOWN = 50;
  const IS = 0, BEGINS = 1, HAS = 2; // how well a name matches
  const LONGEST_CORRECTED = 200, END = 3; // letters; fewer are right at the end of too many names
  const WHITE_SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g;
  const EMPTY = { count: 0, more: false, rows: [] };

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
    }

    // Answers {count, more, rows, part, corrected, by}: how many match, or, with `more`, at least how many; the best of
    // them; what their names have; that again, where it is a name that was searched instead; who compared them.
    async search(text) {
      try {
        return await this.question().answered(text);
      } catch (error) {
        if (this.whole) throw error;
        this.files.clear(); // the site may have been made anew, and a cache has files of before
        return await this.question(true).answered(text);
      }
    }

    // This search with the directory of one question: several may be under way.
    question(fresh = false) {
      return Object.assign(Object.create(this), { fresh });
    }

    async answered(text) {
      this.directory = this.whole ?? await this.file("search/directory.json.gz");
      const slash = text.indexOf("/");
      const part = this.normalise(slash < 0 ? text : text.slice(slash + 1));
      const among = await this.among(slash < 0 ? "" : this.normalise(text.slice(0, slash)));
      const found = await this.named(part, among);
      return { by: this, part, ...found.rows.length ? found : await this.corrected(part, among) ?? found };
    }

    // As mirror/search/names.py: NFKC, case folded, each run of white space one "-".
    normalise(text) {
      const { folds } = this.directory;
      const folded = Array.from(text.normalize("NFKC"), (one) => Object.hasOwn(folds, one) ? folds[one] : one.toLowerCase());
      return folded.join("").replace(WHITE_SPACE, "-");
    }

    // What the repositories are searched among: all rows, or what their texts begin with. Those of the owners of a
    // name, or, without one, of those whose names begin so.
    async among(owner) {
      const { groups = {}, owners = [], repositories } = this.directory, letters = lettersOf(owner);
      if (!owner) return this.whole ? { rows: this.whole.rows } : { of: "" };
      if (letters === null) return { rows: [] };
      const groupOf = (start) => Object.keys(groups).filter((one) => one.startsWith(start)).sort()[0];
      const group = owners.includes(letters) ? undefined : groupOf(letters + NAME) ?? groupOf(letters);
      if (group !== undefined && !this.whole) return { of: groups[group] === repositories ? "" : GROUP + group + GROUP };
      const named = async (after, is) => {
        const { rows } = this.whole ?? await this.find(OWNER, owner, after);
        return rows.filter((row) => is(this.normalise(row[0].slice(0, row[0].indexOf("/")))));
      };
      const rows = await named(NAME, (name) => name === owner);
      return { rows: rows.length ? rows : await named("", (name) => name.startsWith(owner)) };
    }

    async named(part, { of, rows }) {
      const inside = rows ? { count: null, more: false, rows } : await this.find(of, part);
      const found = this.matching(inside.rows, part);
      if (inside.count === null) return { count: found.length, more: inside.more, rows: found };
      if (!part) return inside;
      const begins = await this.find(of + NAME, part);
      let best = this.matching(begins.rows, part, BEGINS);
      if (begins.count !== null) {
        const exact = await this.find(of + NAME, part, NAME);
        best = [...this.matching(exact.rows, part, IS), ...best];
      }
      return { count: inside.count, more: false, rows: unique([...best, ...found]) };
    }

    // As mirror/search/fuzzy.py, among the names that begin or end as the part: with one error, one of the two is right.
    // null where no name is near enough.
    async corrected(part, { of, rows }) {
      const length = Array.from(part).length, allowed = length < 3 ? 0 : length < 5 ? 1 : 2;
      if (!allowed || length > LONGEST_CORRECTED) return null;
      let meant = null;
      for await (const some of rows ? [rows] : this.sharing(of, lettersOf(part))) {
        const found = this.nearest(some, part, allowed);
        if (found && (!meant || isBefore(found.rank, meant.rank))) meant = found;
        if (meant?.errors === 1) break;
      }
      if (!meant) return null;
      return { ...await this.named(meant.name, { of, rows }), part: meant.name, corrected: meant.name };
    }

    // Yields the rows of files near texts that begin as `letters`, and near those that end so: first of whole names, then
    // of parts of names. The file of an end that many have lists the best of them, so a longer end is looked up too.
    async *sharing(of, letters) {
      const near = async (text) => {
        const { entries, rows } = await this.shardOf(of + text);
        const places = entries.flatMap(([path, , places]) => path.startsWith(of) ? places : []);
        return { rows: [...new Set(places)].map((place) => rows[place]), isCommon: entries.some(([path, count]) => path === of + text && count !== null) };
      };
      for (const edge of letters === null ? [] : [NAME, ""]) {
        yield (await near(edge + letters)).rows;
        for (let at = letters.length, isCommon = true; isCommon && at > 0;) {
          at = Math.max(at - END, 0);
          const end = await near(letters.slice(at) + edge);
          yield end.rows;
          ({ isCommon } = end);
        }
      }
    }

    // The name, or the words within one, with the fewest errors; of these a whole name, then the most popular.
    nearest(rows, part, allowed) {
      const words = 1 + (part.match(/[-._]/g) ?? []).length, run = Array(words).fill("[^-._]+").join("[-._]");
      const runs = new RegExp(`(?<![^-._])(?=(${run})(?![^-._]))`, "gu"), length = Array.from(part).length;
      let best = null;
      for (const row of rows) {
        for (const name of this.namesOf(row)) {
          for (const meant of [name, ...Array.from(name.matchAll(runs), (found) => found[1])]) {
            if (Math.abs(Array.from(meant).length - length) > allowed) continue;
            const errors = errorsBetween(part, meant);
            const rank = [errors, meant !== name, -(row[2] ?? 0), -(row[3] ?? 0)];
            if (errors && errors <= allowed && (!best || isBefore(rank, best.rank))) best = { errors, rank, name: meant };
          }
        }
      }
      return best;
    }

    namesOf(row) {
      return [this.normalise(row[1] || ""), this.normalise(row[0].slice(row[0].indexOf("/") + 1))].filter((name) => name);
    }

    // The rows whose name or slug has the part: first those that are it, then those that begin with it, the others;
    // none of a worse class than `worst`.
    matching(rows, part, worst = HAS) {
      if (!part) return rows;
      const classes = [[], [], []];
      for (const row of rows) {
        const names = this.namesOf(row);
        if (names.includes(part)) classes[IS].push(row);
        else if (names.some((name) => name.startsWith(part))) classes[BEGINS].push(row);
        else if (names.some((name) => name.includes(part))) classes[HAS].push(row);
      }
      return classes.slice(0, worst + 1).flat();
    }

    // Looks up a text between letters of the index: {count, more, rows}. A leaf has the count null, and rows
    // of which some may be of other texts; `more` of a leaf: there are others.
    async find(before, text, after = "") {
      const letters = lettersOf(text), wanted = before + letters + after;
      if (letters === null) return EMPTY;
      const shard = await this.shardOf(wanted);
      const [path, count, places] = shard.entries[lastUpTo(shard.entries, wanted, (entry) => entry[0])] ?? [];
      const isLeaf = count === null || count < 0;
      if (path === undefined || !(path === wanted || isLeaf && wanted.startsWith(path))) return EMPTY;
      return { count: isLeaf ? null : count, more: isLeaf && count !== null, rows: places.map((place) => shard.rows[place]) };
    }

    // The file in which a text would be.
    async shardOf(wanted) {
      const { starts } = this.directory, at = lastUpTo(starts, wanted, (start) => start);
      if (at < 0) return { rows: [], entries: [] };
      let shard = await this.file(fileOf(starts[at]));
      // A directory from before the site was made anew: the shard may end earlier than it did.
      while (shard.until !== null && wanted >= shard.until) shard = await this.file(fileOf(shard.until));
      return shard;
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

  const unique = (rows) => [...new Map(rows.map((row) => [row[0] + "\0" + (row[4] ?? ""), row])).values()];

  // How many letters are missing, too many, wrong, or in the place of their neighbours.
  function errorsBetween(one, other) {
    const [a, b] = [Array.from(one), Array.from(other)], lines = [Array.from({ length: b.length + 1 }, (_, at) => at)];
    for (let i = 1; i <= a.length; i += 1) {
      const line = [i];
      for (let j = 1; j <= b.length; j += 1) {
        line[j] = Math.min(lines[i - 1][j] + 1, line[j - 1] + 1, lines[i - 1][j - 1] + (a[i - 1] !== b[j - 1]));
        if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) line[j] = Math.min(line[j], lines[i - 2][j - 2] + 1);
      }
      lines.push(line);
    }
    return lines[a.length][b.length];
  }

  function isBefore(rank, other) {
    const at = rank.findIndex((value, place) => value !== other[place]);
    return at >= 0 && rank[at] < other[at];
  }

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

  // A name in which what matches is marked, if each of its letters can be compared alone.
  function marked(text, { part, by }) {
    const letters = Array.from(text), compared = letters.map((letter) => by.normalise(letter));
    const whole = compared.join(""), hits = new Set(), made = document.createDocumentFragment();
    for (let at = part && whole === by.normalise(text) ? whole.indexOf(part) : -1; at >= 0; at = whole.indexOf(part, at + part.length)) {
      let place = 0;
      compared.forEach((one, index) => {
        if (place < at + part.length && place + one.length > at) hits.add(index);
        place += one.length;
      });
    }
    letters.forEach((letter, index) => {
      if (!index || hits.has(index) !== hits.has(index - 1)) made.append(hits.has(index) ? element("mark") : document.createTextNode(""));
      made.lastChild.textContent += letter;
    });
    return made;
  }

  function line([full_name, name = "", followers = 0, forks = 0, place = "", shown = "", shownName = ""], found) {
    const owner = full_name.slice(0, full_name.indexOf("/")), text = shown || full_name, slash = text.indexOf("/") + 1;
    const link = element("a"), bdi = element("bdi"), title = element("h2"), facts = element("p", "", "facts"), hit = element("article", "", "hit");
    link.href = top + (place || `r/${owner.slice(0, 2).replace(/\.+$/, "")}/${full_name}.html`);
    bdi.append(element("span", text.slice(0, slash), "of"), marked(text.slice(slash), found));
    link.append(bdi);
    title.append(link);
    hit.append(title);
    if (name) {
      const called = element("p", "", "quiet called");
      const bdi = element("bdi");
      bdi.append(marked(shownName || name, found));
      called.append(bdi);
      hit.append(called);
    }
    if (followers) facts.append(element("span", counted(followers, "follower", "followers")));
    if (forks) facts.append(element("span", counted(forks, "fork", "forks")));
    if (followers || forks) hit.append(facts);
    const item = element("li");
    item.append(hit);
    return item;
  }

  // Letters that are not seen, or that turn others round, are written out.
  const seen = (text) => text.replace(/[\p{C}\u2028\u2029]/gu, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);
  const counted = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

  let turn = 0;
  async function show() {
    const mine = ++turn, text = input.value.trim();
    try {
      const found = await (await opened()).search(text);
      if (mine !== turn) return;
      const rows = found.rows.slice(0, SHOWN), corrected = element("a");
      corrected.append(element("bdi", seen(found.corrected ?? "")));
      corrected.href = `?${new URLSearchParams({ q: text.slice(0, text.indexOf("/") + 1) + found.corrected })}`;
      list.replaceChildren(...rows.map((row) => line(row, found)));
      summary.replaceChildren(
        found.more ? "At least " : "", element("b", found.count.toLocaleString("en")), found.count === 1 ? " repository" : " repositories",
        ...(found.corrected ? [" with a name like ", corrected, "; no name contains ", element("bdi", `“${text}”`)]
          : text ? [" with ", element("bdi", `“${text}”`), " in the name"] : []),
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
