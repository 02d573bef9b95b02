// Search as you type, filters without a submit, addresses to copy. All pages work without this script.
"use strict";

const WAIT = 60; // milliseconds without a keystroke before a request is sent

// Requests only the latest address: it aborts an older request, and ignores its answer if that still arrives.
// `fail` gets the reason when there is no answer.
function latest(show, fail) {
  let timer = 0, turn = 0, under_way = null;
  return (address, delay = WAIT) => {
    const mine = ++turn;
    clearTimeout(timer);
    under_way?.abort();
    if (address === null) return;
    timer = setTimeout(async () => {
      under_way = new AbortController();
      try {
        const answer = await fetch(address, { signal: under_way.signal, credentials: "same-origin" });
        const text = answer.ok ? await answer.text() : null;
        if (mine !== turn) return;
        if (text === null) fail(answer.status === 429 || answer.status === 503 ? "The mirror is busy; try again." : `The mirror answered ${answer.status}.`);
        else show(new DOMParser().parseFromString(text, "text/html"), address);
      } catch (error) {
        if (mine === turn && error.name !== "AbortError") fail("The mirror does not answer; are you offline?");
      }
    }, delay);
  };
}

function note(text) {
  const line = document.createElement("p");
  line.className = "note";
  line.textContent = text;
  return line;
}

// A search box with a list of results under it: a combobox as ARIA describes it.
function suggest(form) {
  const input = form.querySelector("input[type=search]");
  const list = document.createElement("div");
  const said = document.createElement("p");
  let at = -1;
  Object.assign(list, { id: `${input.id}-options`, className: "options", hidden: true });
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Repositories found");
  said.className = "hidden";
  said.setAttribute("aria-live", "polite");
  form.parentElement.append(list, said);
  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id }))
    input.setAttribute(name, value);

  const options = () => [...list.querySelectorAll("[role=option]")];
  const open = (yes) => {
    list.hidden = !yes;
    input.setAttribute("aria-expanded", String(yes));
    if (!yes) select(-1);
  };
  const select = (number) => {
    at = number;
    options().forEach((option, index) => option.setAttribute("aria-selected", String(index === number)));
    const chosen = options()[number];
    if (chosen) {
      input.setAttribute("aria-activedescendant", chosen.id);
      chosen.scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  };
  const ask = latest((page) => {
    list.replaceChildren(...page.body.childNodes);
    select(-1);
    open(document.activeElement === input);
    said.textContent = list.querySelector(".all")?.textContent ?? "";
    form.dataset.answered = input.value;
  }, (why) => {
    list.replaceChildren(note(why));
    select(-1);
    open(document.activeElement === input);
    said.textContent = why;
  });
  // After going back, the browser shows an empty box, since autocomplete is off.
  addEventListener("pageshow", () => { if (!input.value && history.state?.query) input.value = history.state.query; });
  input.addEventListener("input", () => {
    const query = input.value.trim();
    history.replaceState({ query }, "");
    if (!query) open(false);
    ask(query ? `${form.dataset.suggest}?${new URLSearchParams({ q: query })}` : null);
  });
  input.addEventListener("keydown", (event) => {
    const count = options().length;
    if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      open(false);
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && count) {
      event.preventDefault();
      if (list.hidden) open(true);
      const step = event.key === "ArrowDown" ? 1 : -1;
      select(at < 0 && step < 0 ? count - 1 : (at + step + count) % count);
    } else if (event.key === "Enter" && at >= 0 && !list.hidden) {
      event.preventDefault();
      const there = event.ctrlKey || event.metaKey ? options()[at].dataset.there : undefined;
      if (there) location.assign(there);
      else options()[at].click();
    }
  });
  input.addEventListener("focus", () => { if (list.childElementCount && input.value.trim()) open(true); });
  form.parentElement.addEventListener("focusout", (event) => {
    if (!form.parentElement.contains(event.relatedTarget)) open(false);
  });
  list.addEventListener("mousedown", (event) => event.preventDefault()); // keeps the focus in the box
}

// A form with results on the same page: these and the address follow each keystroke.
function live(form) {
  const target = () => document.getElementById(form.dataset.live);
  const ask = latest((page, address) => {
    const fresh = page.getElementById(form.dataset.live);
    if (!fresh) return;
    target().replaceWith(fresh);
    if (page.title) document.title = page.title;
    history.replaceState(null, "", address);
    form.dataset.answered = form.querySelector("input[type=search]").value;
  }, (why) => {
    target().querySelector(".note")?.remove();
    target().prepend(note(why));
  });
  form.addEventListener("input", () => {
    const values = [...new FormData(form)].filter(([, value]) => value !== "");
    ask(`${form.action.split(/[?#]/)[0]}?${new URLSearchParams(values)}`, WAIT * 2);
  });
}

// Parts of a page that follow the sync: read again after so many seconds, unless nobody looks or a key is in them.
function fresh() {
  const parts = () => [...document.querySelectorAll("[data-fresh]")];
  const read = async () => {
    if (!document.hidden) try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      const page = answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
      for (const part of page ? parts() : []) {
        const now = page.getElementById(part.id);
        if (now && !part.contains(document.activeElement)) part.replaceWith(now);
      }
    } catch (error) { console.debug(error.message); }
    wait();
  };
  const wait = () => {
    const seconds = parts().map((part) => Number(part.dataset.fresh));
    if (seconds.length) setTimeout(read, 1000 * Math.min(...seconds));
  };
  wait();
}

// A slider over the moments at which something changed: it tells each, and leads to the page as of then.
function slide(box) {
  const range = box.querySelector("input"), told = box.querySelector("output");
  const moments = box.dataset.moments.split(" "), last = moments.length - 1;
  let timer = 0;
  const tell = () => {
    const at = Number(range.value), text = at === last ? "today" : `${moments[at].slice(0, 16).replace("T", " ")} UTC`;
    told.textContent = text;
    range.setAttribute("aria-valuetext", text);
  };
  const go = () => {
    const at = Number(range.value);
    location.assign(`${at === last ? box.dataset.today : box.dataset.then + moments[at]}#moment`);
  };
  range.addEventListener("input", tell);
  range.addEventListener("change", () => { // by the keys once for each step: several of them are one choice
    clearTimeout(timer);
    timer = setTimeout(go, 600);
  });
  range.addEventListener("keydown", (event) => { if (event.key === "Enter") { clearTimeout(timer); go(); } });
  addEventListener("pageshow", () => { range.value = range.defaultValue; tell(); }); // after going back
  box.hidden = false;
  if (location.hash === "#moment") range.focus();
}

function copyable(line) {
  if (!navigator.clipboard) return;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(line.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  line.append(button);
}

// "/" goes to the search box, "o" opens the page at the upstream: of the result with the focus, else the first.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input, textarea, select, [contenteditable]")) return;
  if (event.key === "o") (document.activeElement.closest("li, tr, header")?.querySelector("a.there") ?? document.querySelector("main a.there"))?.click();
  const input = event.key === "/" ? document.querySelector("input[type=search]") : null;
  if (input) {
    event.preventDefault();
    input.focus();
    input.select();
  }
});
addEventListener("load", () => setTimeout(() => { // Datasette's SQL editor makes its own field, without a name
  document.querySelectorAll(".CodeMirror textarea").forEach((field) => field.setAttribute("aria-label", "SQL"));
}));
document.querySelectorAll("form[data-suggest]").forEach(suggest);
document.querySelectorAll("form[data-live]").forEach(live);
document.querySelectorAll(".slide").forEach(slide);
document.querySelectorAll(".copy").forEach(copyable);
fresh();
