// Everything works without this: it keeps pages up to date, and saves a step here and there.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);

// Live places ------------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function drawBars(svg, bars) {
  const parts = bars.map(([, at, length, , colour]) => {
    const rect = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ class: colour, x: at, width: length, height: 6 }))
      rect.setAttribute(name, value);
    return rect;
  });
  svg.replaceChildren(svg.firstElementChild, ...parts);
}

function drawKeys(place, bars) {
  place.replaceChildren(
    ...bars.map(([label, , , share, colour]) => {
      const key = document.createElement("span");
      key.className = `key ${colour}`;
      key.textContent = `${label} ${share}`;
      return key;
    }),
  );
}

function fill(place, words) {
  const name = place.dataset.live;
  if (name === "permille") place.value = words.permille;
  else if (name === "bars") drawBars(place, words.bars);
  else if (name === "keys") { if (words.bars.length) drawKeys(place, words.bars); }
  else if (place.textContent !== words[name]) place.textContent = words[name];
  if (name === "state") place.parentElement.className = `state ${words.state}`;
}

let ended = false;

function show(news) {
  for (const [id, words] of Object.entries(news)) {
    const places = all(`[data-job="${CSS.escape(id)}"] [data-live]`);
    for (const place of places) fill(place, words);
    if (!places.length && one("[data-news]")) one("[data-news]").hidden = false;
    if (places.length && words.over) ended = true;
  }
}

function connect() {
  const said = one("[data-connection]");
  let source = null;
  const open = () => {
    if (source) return;
    source = new EventSource("/live");
    source.onopen = () => { said.textContent = "live"; };
    source.onmessage = (event) => {
      show(JSON.parse(event.data));
      // What can be done with a job is another thing once it is over: the server says what.
      if (ended && !document.activeElement?.closest("form, dialog")) location.reload();
    };
    source.onerror = () => { said.textContent = "connecting"; };
  };
  const close = () => { source?.close(); source = null; };
  // A page that nobody sees asks for nothing.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  if (!document.hidden) open();
}

if (one("[data-job]")) connect();

// The figures of a job -----------------------------------------------------------------------------------------------

const figures = one("[data-figures]");

async function refresh() {
  const running = one(".state.running, .state.reading");
  if (!document.hidden) {
    const answer = await fetch(figures.dataset.figures).catch(() => null);
    if (answer?.status === 200) {
      const html = await answer.text();
      // Whoever reads the numbers of a chart, or has it focused, keeps it.
      const busy = one("details[open]", figures) || figures.contains(document.activeElement);
      if (!busy && figures.dataset.shown !== html) {
        figures.innerHTML = html;
        figures.dataset.shown = html;
      }
      figures.removeAttribute("aria-busy");
    }
  }
  if (figures.hasAttribute("aria-busy")) setTimeout(refresh, 1000);
  else if (running) setTimeout(refresh, 10000);
}

if (figures) setTimeout(refresh, figures.hasAttribute("aria-busy") ? 500 : 10000);

// Keys ---------------------------------------------------------------------------------------------------------------

function typing(target) {
  return target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, dialog");
}

const verdict = one("[data-keys]");
if (verdict) {
  let given = false;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && typing(event.target)) event.target.blur();
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing(event.target)) return;
    const button = one(`[data-key="${CSS.escape(event.key)}"]`, verdict);
    const field = one(`[data-focus-key="${CSS.escape(event.key)}"]`, verdict);
    if (!button && !field) return;
    event.preventDefault();
    if (field) field.focus();
    else button.click();
  });
  // A key that is pressed twice judges one review, not the next one unseen.
  verdict.addEventListener("submit", (event) => {
    if (given) event.preventDefault();
    given = true;
  });
  addEventListener("pageshow", () => { given = false; });
}

// A row in a dialog --------------------------------------------------------------------------------------------------

async function openRow(link) {
  const answer = await fetch(link.href);
  if (!answer.ok) { location.href = link.href; return; }
  const found = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("article.looked");
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "row");
  const close = document.createElement("button");
  close.className = "close";
  close.textContent = "Close";
  close.addEventListener("click", () => dialog.close());
  one(".back", found)?.remove();
  dialog.append(close, found);
  dialog.addEventListener("close", () => { dialog.remove(); link.focus(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-dialog]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  openRow(link).catch(() => { location.href = link.href; });
});

// Upload -------------------------------------------------------------------------------------------------------------

const drop = one("[data-drop]");
if (drop) {
  const input = one("input[type=file]", drop);
  const over = (is) => (event) => { event.preventDefault(); drop.classList.toggle("over", is); };
  drop.addEventListener("dragover", over(true));
  drop.addEventListener("dragleave", over(false));
  drop.addEventListener("drop", (event) => {
    over(false)(event);
    if (!event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    drop.requestSubmit();
  });
  drop.addEventListener("submit", () => { one("[data-sending]", drop).textContent = "The file is being sent."; });
}

// The preview of a file follows its options --------------------------------------------------------------------------

const draft = one("[data-preview-form]");
if (draft) {
  let asked = 0;
  draft.addEventListener("change", async () => {
    const mine = ++asked;
    const data = new FormData(draft);
    data.set("action", "preview");
    const answer = await fetch(draft.getAttribute("action"), {
      method: "POST",
      body: new URLSearchParams(data),
      headers: { "X-CSRF-Token": data.get("csrf") },
    }).catch(() => null);
    if (!answer || mine !== asked) return;
    const found = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-preview]");
    if (found) one("[data-preview]").replaceWith(found);
  });
}
