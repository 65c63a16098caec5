// The live-tail page. The token lives in one variable of this module: never in the address, in storage or in the document.
// Whatever comes from a log reaches the document through textContent alone.

const SHOWN_MAX = 5000; // rows kept in the list
const TEXT_MAX = 16384; // characters shown of one line
const FIRST_LINES = 500; // lines asked for when a namespace is opened
const ROWS_A_FRAME = 400;
const RETRY_FIRST_MS = 500;
const RETRY_LONGEST_MS = 30000;
const SILENCE_UNKNOWN_MS = 80000; // before the server's pace is known
const SILENCE_LEAST_MS = 25000;

const at = (id) => document.getElementById(id);
const page = document.body;
const lines = at("lines");

const BEGIN = at("empty").textContent;

let token = "";
let stream = null; // the open Stream, if any
let interrupted = null; // the Stream that ended with its token, for the next token to go on with
let followNewest = true;

/* ---- what the page says about itself ---- */

const number = new Intl.NumberFormat("en");
let received = 0;
let lastSign = 0;

/** kind: idle, busy, live, paused or bad. The second text stands in the empty list. */
function say(kind, text, inList = text) {
  page.dataset.state = kind;
  at("state").textContent = text;
  at("empty").textContent = inList;
}

function showCounts() {
  const shown = lines.childElementCount;
  at("empty").hidden = shown > 0;
  at("count").textContent = received === 0 ? "" :
    `${number.format(received)} ${received === 1 ? "line" : "lines"}` + (received > shown ? ` · last ${number.format(shown)} shown` : "");
}

function showPulse() {
  if (!stream || !stream.open) {
    if (page.dataset.state !== "bad") at("pulse").textContent = "";
    return;
  }
  const seconds = Math.round((Date.now() - lastSign) / 1000);
  at("pulse").textContent = seconds < 2 ? "heard just now" : `heard ${seconds} s ago`;
}

function beat() {
  const lamp = at("lamp");
  lamp.classList.remove("beat");
  void lamp.offsetWidth; // starts the animation anew
  lamp.classList.add("beat");
}

/* ---- rows ---- */

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const COLOURS = /\u001b\[[0-9;:]*m/g;

/** Colour sequences go; any other control or direction mark becomes visible. */
function printable(text) {
  return text.replace(COLOURS, "").replace(CONTROL, (mark) => {
    const code = mark.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
  });
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function clock(text) {
  const moment = new Date(text);
  const made = element("time", "", "");
  if (Number.isNaN(moment.getTime())) return made;
  const part = (value, digits = 2) => String(value).padStart(digits, "0");
  made.textContent = `${part(moment.getHours())}:${part(moment.getMinutes())}:${part(moment.getSeconds())}.${part(moment.getMilliseconds(), 3)}`;
  made.title = printable(String(text));
  return made;
}

const colours = new Map(); // pod -> colour, given out in turn so that neighbours differ

function colour(name) {
  if (!colours.has(name)) {
    if (colours.size > 2000) colours.clear();
    colours.set(name, `c${colours.size % 8}`);
  }
  return colours.get(name);
}

const joins = new Map(); // source -> the row of a long line whose pieces are still coming

function setText(target, text) {
  if (text.length <= TEXT_MAX) {
    target.textContent = printable(text);
    return;
  }
  target.textContent = printable(text.slice(0, TEXT_MAX));
  target.append(element("span", "more", ` … ${number.format(text.length - TEXT_MAX)} more characters`));
}

/** A row for a record, or null if it was added to the row of the same long line. */
function recordRow(record) {
  const where = record.kubernetes || {};
  const about = record.fairlead || {};
  const text = String(record.log ?? "");
  const chunk = about.chunk;
  if (chunk) {
    const join = joins.get(about.source);
    if (join && join.seq === about.seq && chunk.offset > 0) {
      join.text += text;
      if (join.text.length > 2 * TEXT_MAX) join.hidden += join.text.length - 2 * TEXT_MAX;
      join.text = join.text.slice(0, 2 * TEXT_MAX);
      setText(join.target, join.text);
      if (join.hidden) join.target.lastChild.textContent = ` … ${number.format(join.hidden + TEXT_MAX)} more characters`;
      if (chunk.last) joins.delete(about.source);
      return null;
    }
  }
  const notice = record.stream === "fairlead";
  const row = element("div", `row ${notice ? "notice" : record.stream === "stderr" ? "stderr" : ""}`, "");
  const pod = String(where.pod_name ?? "");
  const container = String(where.container_name ?? "");
  const from = element("span", `from ${colour(pod)}`, printable(pod === container || !container ? pod : `${pod} ${container}`));
  from.title = printable(`${pod} / ${container}`) + (record.stream ? ` · ${printable(String(record.stream))}` : "");
  const target = element("span", "text", "");
  setText(target, text);
  row.append(clock(record.time), from, target);
  if (chunk && !chunk.last) {
    if (joins.size > 100) joins.clear();
    joins.set(about.source, { seq: about.seq, text, target, hidden: 0 });
  }
  return row;
}

function eventRow(text, time) {
  const row = element("div", "row event", "");
  row.append(clock(time ?? new Date().toISOString()), element("span", "from", "fairlead"), element("span", "text", printable(text)));
  return row;
}

/* Rows wait here until the next frame. Of what waits, only the last SHOWN_MAX could be seen. */
let waiting = [];
let frame = 0;

function add(row) {
  waiting.push(row);
  if (waiting.length > 2 * SHOWN_MAX) waiting = waiting.slice(-SHOWN_MAX);
  if (!frame) frame = requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  if (waiting.length > SHOWN_MAX) waiting = waiting.slice(-SHOWN_MAX);
  const now = waiting.splice(0, ROWS_A_FRAME);
  const held = !followNewest;
  const before = lines.scrollHeight;
  const part = document.createDocumentFragment();
  part.append(...now);
  lines.append(part);
  const over = lines.childElementCount - SHOWN_MAX;
  if (over > 0) {
    const upTo = lines.children[over];
    const gone = upTo.offsetTop - lines.firstElementChild.offsetTop;
    const range = document.createRange();
    range.setStartBefore(lines.firstElementChild);
    range.setEndBefore(upTo);
    range.deleteContents();
    if (held) lines.scrollTop -= gone; // what is being read stays where it is
  }
  if (!held) lines.scrollTop = lines.scrollHeight;
  at("newest").hidden = !held || (before === lines.scrollHeight && at("newest").hidden);
  showCounts();
  if (waiting.length && !frame) frame = requestAnimationFrame(draw);
}

function clearLines() {
  waiting = [];
  joins.clear();
  received = 0;
  followNewest = true;
  lines.replaceChildren();
  at("newest").hidden = true;
  showCounts();
}

// Only going up ends the following; that the list grew or changed its shape does not.
let scrolledTo = 0;

lines.addEventListener("scroll", () => {
  const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 24;
  if (atEnd) followNewest = true;
  else if (lines.scrollTop < scrolledTo) followNewest = false;
  scrolledTo = lines.scrollTop;
  if (followNewest) at("newest").hidden = true;
}, { passive: true });

new ResizeObserver(() => {
  if (followNewest) lines.scrollTop = lines.scrollHeight;
}).observe(lines);

at("newest").addEventListener("click", () => {
  followNewest = true;
  lines.scrollTop = lines.scrollHeight;
  at("newest").hidden = true;
  lines.focus({ preventScroll: true });
});

/* ---- the API ---- */

/** A refusal or failure of a request. `final` ones are not tried again. */
class Refusal extends Error {
  constructor(message, { final = true, status = 0, cursor = null, after = 0 } = {}) {
    super(message);
    Object.assign(this, { final, status, cursor, after });
  }
}

async function get(path, accept, signal) {
  let response;
  try {
    response = await fetch(path, { headers: { Authorization: `Bearer ${token}`, Accept: accept }, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer", signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal("The gateway cannot be reached.", { final: false });
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const detail = typeof problem.detail === "string" && problem.detail ? problem.detail : problem.title;
  const status = response.status;
  if (status === 401) throw new Refusal("The token was refused. It may have expired, or be meant for another service.", { status });
  if (status === 404) throw new Refusal("There is no such namespace, or it is not yours.", { status });
  if (status === 410) throw new Refusal("The place to go on from is gone.", { status, final: false, cursor: problem.cursor ?? "" });
  if (status === 400 && problem.parameter === "cursor") throw new Refusal("The gateway does not know the place to go on from.", { status, final: false, cursor: "" });
  if (status === 429 || status >= 500) {
    const after = Number(response.headers.get("Retry-After")) * 1000 || 0;
    throw new Refusal(detail || `The gateway answered ${status}.`, { status, final: false, after });
  }
  throw new Refusal(detail || `The gateway answered ${status}.`, { status });
}

/* ---- one open namespace ---- */

const END = {
  expired: "The token has expired.",
  denied: "This namespace may no longer be read with this token.",
  excluded: "The lines of this namespace are not collected.",
  shutdown: "The gateway is restarting.",
  topic_changed: "The topic was made anew; reading goes on there.",
  unavailable: "Kafka did not answer in time.",
};

class Stream {
  constructor(namespace, filters, cursor = "") {
    Object.assign(this, { namespace, filters, cursor, open: false, paused: false, failures: 0, pace: 0, lastBeat: 0 });
    this.run();
  }

  close() {
    this.closed = true;
    this.stop();
  }

  stop() {
    clearTimeout(this.timer);
    this.open = false;
    this.abort?.abort();
  }

  pause() {
    this.paused = true;
    this.stop();
    say("paused", "Paused. Nothing is lost: reading goes on from here.");
    showPulse();
  }

  resume() {
    this.paused = false;
    this.failures = 0;
    this.run();
  }

  address() {
    const query = new URLSearchParams({ follow: "true" });
    if (this.cursor) query.set("cursor", this.cursor);
    else query.set("tail", String(FIRST_LINES));
    for (const [name, value] of Object.entries(this.filters)) if (value) query.set(name, value);
    return `v1/namespaces/${encodeURIComponent(this.namespace)}/logs?${query}`;
  }

  async run() {
    clearTimeout(this.timer);
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    say("busy", this.failures ? "Connecting again …" : "Connecting …");
    showPulse();
    try {
      const response = await get(this.address(), "application/x-ndjson", abort.signal);
      this.open = true;
      this.heard();
      this.live();
      await this.read(response.body.getReader(), abort.signal);
      throw new Refusal("The connection ended.", { final: false });
    } catch (problem) {
      if (abort.signal.aborted && this.abort === abort && this.silent) {
        this.silent = false;
        this.retry(new Refusal("Nothing was heard for too long.", { final: false }));
      } else if (!abort.signal.aborted) {
        abort.abort();
        this.retry(problem instanceof Refusal ? problem : new Refusal("The connection was lost.", { final: false }));
      }
    }
  }

  retry(problem) {
    this.open = false;
    if (this.closed || this.paused) return;
    at("pulse").textContent = "";
    if (problem.status === 401) return expire(problem.message);
    if (problem.final) return say("bad", problem.message);
    if (problem.cursor !== null) {
      this.cursor = typeof problem.cursor === "string" ? problem.cursor : "";
      add(eventRow(`${problem.message} ${this.cursor ? "Some lines may be missing here." : "The last lines follow, some of them perhaps again."}`));
    }
    const pause = Math.max(problem.after, Math.min(RETRY_LONGEST_MS, RETRY_FIRST_MS * 2 ** this.failures)) * (0.75 + Math.random() / 2);
    this.failures += 1;
    const due = Date.now() + pause;
    say("bad", `${problem.message} Trying again.`);
    const wait = () => {
      const left = due - Date.now();
      if (left <= 0) return void this.run();
      at("pulse").textContent = `in ${Math.ceil(left / 1000)} s`; // outside the status: read out once, not each second
      this.timer = setTimeout(wait, Math.min(left, 1000));
    };
    wait();
  }

  live() {
    const filtered = Object.values(this.filters).some(Boolean);
    say("live", "Live", filtered ? "Live.\nNo line has matched the filter yet." : "Live.\nWaiting for lines.");
  }

  heard() {
    lastSign = Date.now();
    clearTimeout(this.timer);
    const patience = this.pace ? Math.max(SILENCE_LEAST_MS, this.pace * 2.5) : SILENCE_UNKNOWN_MS;
    const abort = this.abort;
    this.timer = setTimeout(() => {
      this.silent = true;
      abort.abort();
    }, patience);
  }

  async read(reader, signal) {
    const decoder = new TextDecoder();
    let rest = "";
    let rested = performance.now();
    for (;;) {
      const { value, done } = await reader.read();
      if (done || signal.aborted) return;
      this.heard();
      const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = parts.pop();
      for (const part of parts) {
        if (part) this.take(part);
        if (signal.aborted) return;
      }
      // Under a flood the page must still answer to clicks.
      if (performance.now() - rested > 30) {
        await new Promise((resolve) => { setTimeout(resolve, 0); });
        rested = performance.now();
      }
    }
  }

  take(text) {
    let item;
    try {
      item = JSON.parse(text);
    } catch {
      add(eventRow("A line of the answer could not be understood."));
      return;
    }
    if (typeof item.cursor === "string") this.cursor = item.cursor;
    if (item.event === undefined) {
      received += 1;
      this.failures = 0;
      const row = recordRow(item);
      if (row) add(row);
      return;
    }
    if (item.event === "heartbeat") {
      const now = Date.now();
      if (this.lastBeat) this.pace = Math.max(this.pace, Math.min(now - this.lastBeat, 60000));
      this.lastBeat = now;
      this.failures = 0;
      if (page.dataset.state !== "live") this.live();
      beat();
    } else if (item.event === "gap") {
      const many = Number.isFinite(item.records) ? `${number.format(item.records)} records are` : "Records are";
      add(eventRow(`Gap: ${many} missing here${item.reason === "retention" ? ", older than the topic keeps" : item.reason === "scan_limit" ? ", not searched for the last lines" : ""}.`, item.time));
    } else if (item.event === "end") {
      this.ended(String(item.reason));
    }
  }

  ended(reason) {
    const text = END[reason] ?? `The stream ended (${reason}).`;
    const goesOn = !["expired", "denied", "excluded"].includes(reason);
    if (reason !== "complete" && reason !== "limit") add(eventRow(text));
    if (reason === "expired") {
      return expire(text);
    }
    throw new Refusal(text, { final: !goesOn });
  }
}

/* ---- what the reader does ---- */

const FILTERS = ["pod", "container", "stream", "grep"];

function filters() {
  return Object.fromEntries(FILTERS.map((name) => [name, at(name).value.trim()]));
}

function showFilterCount() {
  const used = Object.values(filters()).filter(Boolean).length;
  at("filter-count").textContent = used ? ` · ${used} set` : "";
}

/** The address keeps what is shown, so that it can be bookmarked; it never holds the token. */
function remember() {
  const query = new URLSearchParams();
  if (at("namespace").value) query.set("namespace", at("namespace").value);
  for (const [name, value] of Object.entries(filters())) if (value) query.set(name, value);
  history.replaceState(null, "", `#${query}`);
}

function recall() {
  const query = new URLSearchParams(location.hash.slice(1));
  for (const name of FILTERS) at(name).value = query.get(name) ?? "";
  showFilterCount();
  return query.get("namespace") ?? "";
}

function start(opened) {
  stream = opened;
  at("pause").disabled = !opened;
  at("pause").textContent = "Pause";
  document.title = opened ? `${opened.namespace} · Fairlead` : "Fairlead";
}

function open() {
  stream?.close();
  clearLines();
  remember();
  showFilterCount();
  const namespace = at("namespace").value;
  start(namespace ? new Stream(namespace, filters()) : null);
  if (!namespace) say("idle", "Choose a namespace.");
}

async function listNamespaces() {
  const answer = await (await get("v1/namespaces", "application/json")).json();
  const items = Array.isArray(answer) ? answer : answer.namespaces ?? [];
  return items.map((item) => (typeof item === "string" ? item : String(item.name))).sort();
}

function fillNamespaces(names, chosen) {
  const choose = element("option", "", names.length ? "Choose a namespace" : "No namespace");
  choose.value = "";
  const options = names.map((name) => {
    const option = element("option", "", name);
    option.value = name;
    return option;
  });
  at("namespace").replaceChildren(choose, ...options);
  at("namespace").value = names.includes(chosen) ? chosen : "";
}

async function signIn() {
  const asked = recall();
  say("busy", "Asking who this is …");
  try {
    const names = await listNamespaces();
    fillNamespaces(names, asked || (names.length === 1 ? names[0] : ""));
    at("sign-in").hidden = true;
    at("choice").hidden = false;
    at("filters").hidden = false;
    at("namespace").focus();
    const before = interrupted;
    interrupted = null;
    if (before && names.includes(before.namespace)) {
      fillNamespaces(names, before.namespace);
      start(new Stream(before.namespace, before.filters, before.cursor));
    } else if (names.length) {
      open();
      if (stream) lines.focus();
    }
    else say("idle", "This token may read no namespace.", "This token may read no namespace.\nAsk whoever runs Fairlead to name you in a tenant.");
  } catch (problem) {
    if (!(problem instanceof Refusal)) return signOut("The answer could not be understood.");
    if (problem.final) return signOut(problem.message);
    say("bad", `${problem.message} Trying again.`);
    const held = token;
    setTimeout(() => {
      if (token === held && at("choice").hidden) signIn();
    }, Math.max(2000, problem.after));
  }
}

/** The token is no good any more; what was open waits for another. */
function expire(reason) {
  const ended = stream;
  signOut(reason);
  interrupted = ended;
}

function signOut(reason) {
  token = "";
  stream?.close();
  stream = null;
  at("sign-in").hidden = false;
  at("choice").hidden = true;
  at("filters").hidden = true;
  document.title = "Fairlead";
  at("pulse").textContent = "";
  say(reason ? "bad" : "idle", reason || "No token", reason ? `${reason}\nPaste another token.` : BEGIN);
  at("token").focus();
}

at("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = at("token");
  token = field.value.trim().replace(/^Bearer\s+/i, "");
  field.value = "";
  if (!/^[\x21-\x7e]+$/.test(token)) return signOut("That is no token.");
  if (!interrupted) clearLines();
  signIn();
});

at("sign-out").addEventListener("click", () => {
  clearLines();
  interrupted = null;
  fillNamespaces([], "");
  signOut("");
});

at("namespace").addEventListener("change", open);

// A namespace may have appeared since the list was read.
at("namespace").addEventListener("focus", async () => {
  if (Date.now() - (fillNamespaces.at ?? 0) < 30000) return;
  fillNamespaces.at = Date.now();
  try {
    const names = await listNamespaces();
    if (token) fillNamespaces(names, at("namespace").value);
  } catch {
    // The open stream says what is wrong.
  }
});

at("pause").addEventListener("click", () => {
  if (!stream) return;
  if (stream.paused) stream.resume();
  else stream.pause();
  at("pause").textContent = stream.paused ? "Go on" : "Pause";
});

at("clear").addEventListener("click", clearLines);

at("filter-form").addEventListener("submit", (event) => {
  event.preventDefault();
  open();
});

at("filter-form").addEventListener("reset", () => {
  const { checked: times } = at("times");
  const { checked: wrap } = at("wrap");
  setTimeout(() => {
    at("times").checked = times;
    at("wrap").checked = wrap;
    open();
  });
});

at("stream").addEventListener("change", open);

at("times").addEventListener("change", () => lines.classList.toggle("no-times", !at("times").checked));

at("wrap").addEventListener("change", () => lines.classList.toggle("no-wrap", !at("wrap").checked));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || at("choice").hidden) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && typing) lines.focus();
  if (typing) return;
  if (event.key === "/") {
    event.preventDefault();
    at("filters").open = true;
    at("grep").focus();
    at("grep").select();
  } else if (event.key === "p" && !at("pause").disabled) {
    event.preventDefault();
    at("pause").click();
  }
});

window.addEventListener("hashchange", () => {
  if (!token) return;
  const asked = recall();
  at("namespace").value = [...at("namespace").options].some((option) => option.value === asked) ? asked : "";
  open();
});

at("filters").open = window.matchMedia("(min-width: 701px)").matches;
recall();
setInterval(showPulse, 1000);
at("token").focus();
