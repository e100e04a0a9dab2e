// The charts, one selected trial for all of them, and the outputs. Text gets in as text alone.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const trials = new Map(data.runs.flatMap((run) => run.tables.trials.map((row) => [row.key, row])));
const views = [];
let picked = "";
let pointed = "";

function number(value) {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" && !Number.isInteger(value) ? String(+value.toPrecision(3)) : String(value);
}

function about(row, between) {
  const scores = row.j === null ? "no report" : `j ${row.j.toFixed(3)}, copy rate ${row.copy_rate.toFixed(3)} at step ${row.best_step}`;
  const settings = row.read.map((name) => `${name}=${number(row[name])}`).join(", ");
  const end = data.ended[row.ended] + (row.reason ? ` (${row.reason})` : "");
  return [scores, settings, `${row.steps} steps: ${end}`].filter(Boolean).join(between);
}

function tell() {
  for (const view of views) view.signal("picked", picked).signal("pointed", pointed).runAsync();
  for (const row of document.querySelectorAll("tr[data-key]")) {
    row.classList.toggle("picked", row.dataset.key === picked);
    row.classList.toggle("pointed", row.dataset.key === pointed);
  }
}

function pick(key) {
  picked = key;
  $("trial").value = key;
  $("about").textContent = key ? about(trials.get(key), " · ") : "";
  for (const button of document.querySelectorAll("button.trial")) {
    button.setAttribute("aria-pressed", String(button.dataset.key === key));
  }
  tell();
  list();
}

function point(key, event) {
  if (key !== pointed) {
    pointed = key;
    tell();
  }
  const tip = $("tip");
  tip.hidden = !key || !event;
  if (tip.hidden) return;
  const row = trials.get(key);
  tip.textContent = `${row.trial}${row.winner ? " (winner)" : ""}\n${about(row, "\n")}`;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 4))}px`;
  tip.style.top = `${event.clientY + height + 24 > innerHeight ? event.clientY - height - 14 : event.clientY + 14}px`;
}

async function draw(place) {
  const run = data.runs[place.dataset.run];
  const spec = run.charts[place.dataset.chart];
  // A copy for each: the library marks the rows that it reads.
  for (const table of spec.data) {
    if (run.tables[table.name]) table.values = structuredClone(run.tables[table.name]);
  }
  const view = new vega.View(vega.parse(spec), { renderer: "svg", container: place, tooltip: () => {} });
  view.logLevel(vega.Error);
  const key = (item) => (trials.has(item?.datum?.key) ? item.datum.key : "");
  view.addEventListener("mousemove", (event, item) => point(key(item), event));
  view.addEventListener("mouseout", () => point("", null));
  view.addEventListener("click", (_, item) => key(item) && pick(key(item)));
  views.push(view.signal("picked", picked).signal("pointed", pointed));
  await view.runAsync();
  place.querySelector("svg").setAttribute("aria-hidden", "true"); // its place has a label
}

// Outputs: {pairs: [[language, source, references]], trials: {key: [[pair, output, label, j]]}}
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

let unpacked = false;
const outputs = new Map(); // key of a trial -> Map(pair -> [output, label, j])
const pairs = new Map(); // the pair as text -> [language, source, references]
const AT_ONCE = 25;
let found = [];
let listed = 0;

async function loadOutputs() {
  for (const script of document.querySelectorAll("script.outputs")) {
    const packed = await unpack(script.textContent);
    const names = packed.pairs.map((pair) => JSON.stringify(pair));
    names.forEach((name, n) => pairs.set(name, packed.pairs[n]));
    for (const [key, rows] of Object.entries(packed.trials)) {
      outputs.set(key, new Map(rows.map(([pair, ...rest]) => [names[pair], rest])));
    }
  }
  unpacked = true;
}

// Words and signs, each with the space before it, which no comparison sees.
function words(text) {
  return text.match(/\s*(?:[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{M}\p{N}_*'’-]+|\S|$)/gu) ?? [];
}

// The longest common run of words, in order: [kind, text] with kind same, del or ins.
function changes(before, after) {
  const a = words(before), b = words(after);
  if (a.length * b.length > 250000) return [["same", after]];
  const plain = (text) => text.trim().toLowerCase();
  const left = a.map(plain), right = b.map(plain);
  const same = (i, j) => left[i] === right[j];
  const width = b.length + 1, best = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i * width + j] = same(i, j) ? best[(i + 1) * width + j + 1] + 1
        : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  const parts = [];
  const add = (kind, text) => {
    if (parts.length && parts.at(-1)[0] === kind) parts.at(-1)[1] += text;
    else parts.push([kind, text]);
  };
  let i = 0, j = 0;
  // After dropped words: with the space of the source, where the answer has none.
  const written = () => (parts.at(-1)?.[0] === "del" && !/^\s/u.test(b[j]) ? /^\s*/u.exec(a[i] ?? "")[0] : "") + b[j];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && same(i, j)) { add("same", written()); i++; j++; }
    else if (j === b.length || (i < a.length && best[(i + 1) * width + j] >= best[i * width + j + 1])) add("del", a[i++]);
    else { add("ins", written()); j++; }
  }
  return parts;
}

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function line(list, title, language, source, text, label, j) {
  const shown = element("dd", "", label === "copied" ? "copied" : "");
  shown.dir = "auto";
  if (/^[a-z]{2,3}$/.test(language)) shown.lang = language;
  for (const [kind, part] of source === null ? [["same", text]] : changes(source, text)) {
    const [, space, said] = /^(\s*)([^]*)$/u.exec(part);
    shown.append(space, kind === "same" ? said : element(kind, said));
  }
  if (label) shown.append(element("span", `${label}, j ${j === null ? "–" : j.toFixed(2)}`, "tag"));
  list.append(element("dt", title), shown);
}

function card(name) {
  const [language, source, references] = pairs.get(name);
  const item = element("li"), parts = element("dl");
  line(parts, data.languages > 1 ? `source (${language})` : "source", language, null, source);
  for (const reference of references) line(parts, "reference", language, source, reference);
  for (const key of [picked, $("other").value]) {
    const row = outputs.get(key)?.get(name);
    if (row) line(parts, titled(key), language, source, ...row);
  }
  item.append(parts);
  return item;
}

function titled(key) {
  const row = trials.get(key);
  return data.runs.length > 1 ? `${data.runs[key.split("/")[0]].name} ${row.trial}` : row.trial;
}

function more() {
  const next = found.slice(listed, listed + AT_ONCE);
  $("sentences").append(...next.map(card));
  listed += next.length;
  $("more").hidden = listed >= found.length;
}

function list() {
  const mine = outputs.get(picked), others = outputs.get($("other").value);
  const label = $("label").value, wanted = $("text").value.toLocaleLowerCase();
  found = [...(mine ?? [])].filter(([name, row]) => {
    if (label && row[1] !== label) return false;
    const [, source, references] = pairs.get(name);
    const texts = [source, ...references, row[0], others?.get(name)?.[0] ?? ""];
    return texts.some((text) => text.toLocaleLowerCase().includes(wanted));
  }).map(([name]) => name);
  $("count").textContent = mine ? `${found.length} of ${mine.size} sentences`
    : !unpacked ? "Reading the outputs …"
    : picked ? "This page has no outputs of the selected trial." : "Select a trial to see its outputs.";
  $("sentences").replaceChildren();
  listed = 0;
  more();
}

const byText = new Intl.Collator("en", { numeric: true });

// Sorts the trials by a column; those without a value stay last, whichever way round.
function sort(button) {
  const head = button.closest("th"), body = button.closest("table").tBodies[0];
  const turn = head.ariaSort === "ascending" ? -1 : 1;
  for (const other of head.parentElement.children) other.ariaSort = "none";
  head.ariaSort = turn === 1 ? "ascending" : "descending";
  const { column } = button.dataset;
  const value = (row) => {
    const told = trials.get(row.dataset.key)[column];
    return column === "ended" ? data.ended[told] : told;
  };
  body.append(...[...body.rows].sort((one, other) => {
    const a = value(one), b = value(other);
    if (a === null || b === null) return (a === null) - (b === null);
    return turn * (typeof a === "number" ? a - b : byText.compare(a, b));
  }));
}

function connect() {
  $("trial").addEventListener("change", (event) => pick(event.target.value));
  for (const id of ["other", "label", "text"]) $(id).addEventListener("input", list);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("more").addEventListener("click", more);
  addEventListener("keydown", (event) => event.key === "Escape" && point("", null));
  addEventListener("scroll", () => { $("tip").hidden = true; }, { passive: true });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  for (const button of document.querySelectorAll("button[data-column]")) button.addEventListener("click", () => sort(button));
  for (const row of document.querySelectorAll("tr[data-key]")) {
    row.addEventListener("mouseenter", () => point(row.dataset.key, null));
    row.addEventListener("mouseleave", () => point("", null));
  }
  for (const button of document.querySelectorAll("button.trial")) {
    button.addEventListener("click", () => pick(button.dataset.key));
    button.addEventListener("focus", () => point(button.dataset.key, null));
    button.addEventListener("blur", () => point("", null));
  }
}

// First what is in sight, then the outputs, then one chart after the other.
async function drawAll() {
  const places = [...document.querySelectorAll(".chart")];
  const inSight = (place) => place.getBoundingClientRect().top < innerHeight;
  for (const place of places.filter(inSight)) await draw(place);
  document.body.dataset.ready = Math.round(performance.now());
  await loadOutputs();
  list();
  for (const place of places.filter((one) => !one.firstChild)) {
    await new Promise((go) => setTimeout(go)); // lets clicks and keys through
    await draw(place);
  }
  document.body.dataset.drawn = Math.round(performance.now());
}

connect();
$("other").value = data.second;
pick(data.first);
await drawAll();
