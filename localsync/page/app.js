"use strict";

const every = 2000, ring = 150; // five minutes
const names = { object: "decoded", local: "local", redis: "Redis", loader: "loader" };
const levels = ["object", "local", "redis", "loader"];
const past = new Map(); // by module and version: the points of its charts
const keys = inspector();
let before = null;

const $ = (id) => document.getElementById(id);
const sum = (list, f) => list.reduce((a, m) => a + f(m), 0);
const reads = (m) => sum(levels, (l) => m[l] || 0);
const near = (m) => m.object + m.local; // answered without leaving the process

// rates are a module's reads per second since the last look.
function rates(now, then, seconds) {
  const out = {};
  for (const l of levels) out[l] = Math.max(0, ((now[l] || 0) - (then ? then[l] || 0 : 0)) / seconds);
  return out;
}

const share = (p) => { const all = reads(p); return all > 0 ? near(p) / all : null; };

function tile(name, value, more) {
  return el("div", {}, el("span", {}, name), el("b", {}, value), el("small", {}, more || ""));
}

function showTiles(s, points) {
  const now = { object: 0, local: 0, redis: 0, loader: 0 };
  for (const p of points) for (const l of levels) now[l] += p[l];
  const since = share({ object: sum(s.modules, (m) => m.object), local: sum(s.modules, (m) => m.local), redis: sum(s.modules, (m) => m.redis), loader: sum(s.modules, (m) => m.loader) });
  fill($("tiles"),
    tile("answered here", fmt.percent(share(now)), "since start " + fmt.percent(since)),
    tile("reads", fmt.rate(reads(now)), fmt.count(sum(s.modules, reads)) + " since start"),
    tile("loaded", fmt.rate(now.loader), sum(s.modules, (m) => m.loading) + " keys being read"),
    tile("commit to node", s.bus.commit_lag_ns ? fmt.ns(s.bus.commit_lag_ns) : "–", "the last change heard"),
    tile("stale or failed", fmt.count(sum(s.modules, (m) => m.stale + m.errors)), "reads since start"));
}

function showState(s) {
  const pill = $("state");
  const [text, mood] = !s.ready ? ["not ready", "bad"] : s.degraded && s.bus.behind_ns ? ["degraded: the daemon is " + fmt.ns(s.bus.behind_ns) + " behind", "warn"] : s.degraded ? ["degraded: " + s.bus.silent + " of " + s.bus.partitions + " partitions silent", "warn"] : ["in step", "good"];
  pill.textContent = text;
  pill.className = "pill " + mood;
  $("node").textContent = s.node;
  $("up").textContent = "up " + fmt.ns((new Date(s.at) - new Date(s.started)) * 1e6);
  document.title = s.node + " · localsync";
}

function moduleCard(id, m) {
  const card = el("div", { class: "card" });
  card.id = "m-" + id;
  card.parts = {
    share: el("b", {}, "–"), rate: svg("share of reads answered here"), volume: svg("reads per second by level"),
    rateNote: el("span", {}), volumeNote: el("span", {}), legend: el("p", { class: "legend" }), facts: el("dl", { class: "facts" }), top: el("ul", { class: "top" }),
  };
  const p = card.parts;
  card.append(
    el("div", { class: "head" }, el("h3", {}, m.name + (m.version > 1 ? " v" + m.version : "")), p.share), p.legend,
    el("figure", {}, p.rate, el("figcaption", {}, el("span", {}, "answered here"), p.rateNote)),
    el("figure", {}, p.volume, el("figcaption", {}, el("span", {}, "reads by level"), p.volumeNote)),
    p.facts,
    el("details", {}, el("summary", {}, "Keys read most"), p.top));
  return card;
}

function showModule(m, top, point) {
  const id = m.name + " " + m.version;
  const points = past.get(id) || [];
  past.set(id, points);
  if (point) points.push(point);
  if (points.length > ring) points.shift();
  let card = document.getElementById("m-" + id);
  if (!card) {
    card = moduleCard(id, m);
    $("modules").append(card);
  }
  const p = card.parts, last = points[points.length - 1], used = levels.filter((l) => l !== "object" || m.object > 0);
  p.share.textContent = fmt.percent(last ? share(last) : share(m));
  const low = line(p.rate, points.map(share));
  p.rateNote.textContent = (100 * low).toFixed(0) + " to 100 %";
  const peak = stacked(p.volume, points, levels);
  p.volumeNote.textContent = points.length > 1 ? "peak " + fmt.rate(peak) : "";
  const all = last ? reads(last) : 0;
  fill(p.legend, ...used.map((l) => el("span", { class: "key l-" + l }, el("i", {}, names[l] + " " + fmt.percent(all > 0 ? last[l] / all : null)))));
  facts(p.facts, [
    ["reads", fmt.count(reads(m))], ["not found", fmt.count(m.empty)], ["loads", fmt.count(m.loads)],
    ["refreshed behind readers", fmt.count(m.refreshes)], ["not kept", fmt.count(m.refused)],
    ["leased, left to others", fmt.count(m.leases) + ", " + fmt.count(m.lease_waits)],
    ...[["stale", m.stale, "warn"], ["failed reads", m.errors, "bad"], ["failed loads", m.load_errors, "bad"], ["lease timeouts", m.lease_timeouts, "warn"], ["Redis failures", m.redis_errors, "bad"],
      ["unusable in Redis", m.corrupt, "bad"], ["Redis behind", m.behind, "warn"]].filter((r) => r[1] > 0).map((r) => [r[0], fmt.count(r[1]), r[2]]),
  ]);
  showTop(p.top, m, top || []);
}

function showTop(list, m, top) {
  if (top.length === 0) return fill(list, el("li", { class: "hint" }, "None yet: one read in 256 is looked at, over the last two minutes."));
  fill(list, ...top.map((k) => {
    const bar = el("span", { class: "bar" }), open = el("button", { type: "button", title: "Inspect" }, el("code", {}, k.key), el("span", {}, "≥ " + fmt.rate(k.per_second)), bar);
    bar.style.width = Math.max(1, 100 * k.per_second / top[0].per_second) + "%";
    open.addEventListener("click", () => keys.open(m.name, m.version, k.key));
    return el("li", {}, open);
  }));
}

function showBus(b, degraded) {
  facts($("bus"), [
    ["partitions", b.partitions], ["silent", b.silent, b.silent ? "bad" : ""], ["lag", fmt.ns(b.lag_ns), degraded ? "bad" : ""], ["daemon behind", b.behind_ns ? fmt.ns(b.behind_ns) : "no", b.behind_ns ? "warn" : ""],
    ["invalidations, hints", fmt.count(b.applied) + ", " + fmt.count(b.hinted)], ["records, heartbeats", fmt.count(b.records) + ", " + fmt.count(b.heartbeats)],
    ["gaps", b.gaps, b.gaps ? "warn" : ""], ["undecodable", b.undecodable, b.undecodable ? "bad" : ""],
  ]);
  fill($("partitions"), ...(b.by_partition || []).map((p, i) => {
    const lately = p.gaps > 0 && p.suspect_ago_ns < 300e9;
    const tip = `partition ${i}: lag ${fmt.ns(p.lag_ns)}, ${p.gaps} gaps` + (p.gaps ? ", the last " + fmt.ns(p.suspect_ago_ns) + " ago" : "");
    return el("div", { class: p.silent ? "silent" : lately ? "suspect" : "", title: tip }, el("b", {}, i), fmt.ns(p.heard_ago_ns));
  }));
}

function showStore(s) {
  const part = s.bytes / s.max_bytes;
  $("fill").style.width = Math.min(100, 100 * part) + "%";
  facts($("store"), [
    ["allocated", fmt.bytes(s.bytes) + " of " + fmt.bytes(s.max_bytes)], ["taken by entries", fmt.bytes(s.live)], ["entries", fmt.count(s.entries)],
    ["floors", fmt.count(s.floors)], ["made room for others", fmt.count(s.evicted), s.evicted ? "warn" : ""],
    ["too big to keep", fmt.count(s.too_big), s.too_big ? "warn" : ""], ["compactions", fmt.count(s.compactions)],
  ]);
}

function settingsCard(title, note, rows) {
  return el("div", { class: "card" }, el("div", { class: "head" }, el("h3", {}, title), note ? el("span", { class: "pill" }, note) : ""),
    el("table", {}, el("tbody", {}, ...rows.map((s) => el("tr", {}, el("th", { scope: "row" }, s.name), el("td", {}, s.value),
      el("td", { class: "from " + s.from }, s.from + (s.code ? " (code: " + s.code + ")" : "") + (s.daemon ? " (daemon says " + s.daemon + ")" : "")))))));
}

function showSettings(c) {
  fill($("settings"), ...(c.modules || []).map((m) => settingsCard(m.name + (m.version > 1 ? " v" + m.version : ""), [m.pinned ? "pinned" : "", m.loader ? "" : "no loader"].filter(Boolean).join(", "), m.settings)),
    settingsCard("This node", "", c.options));
}

function show(s) {
  const seconds = before ? (new Date(s.at) - new Date(before.at)) / 1000 : 0;
  const same = before && before.instance === s.instance && seconds > 0;
  if (before && before.instance !== s.instance) past.clear(); // restarted
  const points = [];
  for (const m of s.modules || []) {
    const then = same && before.modules.find((o) => o.name === m.name && o.version === m.version);
    const p = then ? rates(m, then, seconds) : null;
    if (p) points.push(p);
    showModule(m, s.top[m.name], p);
  }
  showState(s);
  showTiles(s, points);
  showBus(s.bus, s.degraded);
  showStore(s.store);
  before = s;
}

let known = "";
async function tick() {
  if (!document.hidden) {
    try {
      const s = await ask("stats");
      s.modules = s.modules || [];
      show(s);
      const declared = s.modules.map((m) => m.name + m.version + m.generation).join();
      if (declared !== known || tick.count++ % 15 === 0) {
        const c = await ask("config");
        keys.modules(c);
        showSettings(c);
        known = declared;
      }
      $("problem").hidden = true;
    } catch (e) {
      $("problem").hidden = false;
      $("problem").textContent = "The node does not answer: " + e.message;
      $("state").textContent = "no answer";
      $("state").className = "pill bad";
    }
  }
  setTimeout(tick, every);
}
tick.count = 0;
tick();
