"use strict";
// The key inspector. The loader is asked only by its button, with a POST.

async function ask(url, options) {
  const res = await fetch(url, options);
  const doc = await res.json().catch(() => ({ error: "answer " + res.status + " is not JSON", remedy: "is a login or a proxy in between?" }));
  if (!res.ok) throw new Error(doc.error + ". Remedy: " + doc.remedy);
  return doc;
}

const states = { value: "", empty: "EMPTY: known to be absent", none: "nothing there", unusable: "not usable", error: "failed", not_asked: "not asked" };

// indent breaks JSON into lines and leaves every letter of it as it is: what
// JSON.parse and stringify give back has other digits and another order.
function indent(text) {
  let out = "", depth = 0, quoted = false;
  const line = () => "\n" + "  ".repeat(depth);
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      out += c;
      if (c === "\\") out += text[++i];
      else if (c === '"') quoted = false;
    } else if (c === '"') { quoted = true; out += c; }
    else if (c === "{" || c === "[") { depth++; out += c + line(); }
    else if (c === "}" || c === "]") { depth--; out += line() + c; }
    else if (c === ",") out += c + line();
    else if (c === ":") out += ": ";
    else if (!/\s/.test(c)) out += c;
  }
  return out;
}

function payloadText(p) {
  return p.cut ? p.text + "\n… cut at 64 KiB" : p.form === "json" ? indent(p.text) : p.text;
}

function copyCard(title, c, payloads) {
  const card = el("div", {}, el("div", { class: "head" }, el("h3", {}, title), el("span", { class: "pill" }, c.state.replace("_", " "))));
  const rows = [];
  if (states[c.state]) rows.push(["state", states[c.state]]);
  if (c.version_text) rows.push(["version", c.version_text]);
  if (c.flags) rows.push(["flags", c.flags.join(", ")]);
  if (c.generation) rows.push(["generation", c.generation]);
  if (c.state === "value" || c.state === "empty") {
    if (title !== "Loader") rows.push([title === "Redis" ? "built" : "confirmed", fmt.ns(c.age_ns) + " ago"], ["lives", c.ttl_ns ? fmt.ns(c.ttl_ns) : "for ever"]);
    rows.push(["size", fmt.bytes(c.size)]);
  }
  if (c.note) rows.push(["note", c.note]);
  const dl = el("dl", { class: "facts" });
  facts(dl, rows);
  card.append(dl);
  if (c.payload) card.append(el("pre", {}, payloadText(c.payload)));
  else if (c.state === "value" && !payloads) card.append(el("p", { class: "hint" }, "What it holds is not shown: the page was made without WithPayloads."));
  return card;
}

function showInspection(box, i, payloads) {
  const verdicts = el("ul", { class: "verdicts" }, ...(i.verdicts || []).map((v) => el("li", {}, v)));
  const about = el("p", { class: "hint" }, `${i.redis_key} · partition ${i.partition} · newest change heard of: ${i.floor === "0" ? "none lately" : i.floor_text}`
    + (i.served ? " · a read is served from this node" : " · a read goes further than this node"));
  const copies = el("div", { class: "copies" }, copyCard("This node", i.local, payloads));
  if (i.redis) copies.append(copyCard("Redis", i.redis, payloads));
  if (i.loader) copies.append(copyCard("Loader", i.loader, payloads));
  fill(box, about, verdicts, copies);
}

// inspector wires the form up, once. modules is called when they change.
function inspector() {
  const form = document.getElementById("inspect"), box = document.getElementById("answer"), select = form.elements.module;
  let payloads = false;
  const run = async (method) => {
    if (!form.reportValidity()) return;
    const [module, version] = select.value.split(" ");
    const query = new URLSearchParams({ module, version, key: form.elements.key.value });
    for (const b of form.querySelectorAll("button")) b.disabled = true;
    try {
      showInspection(box, await ask("inspect?" + query, { method }), payloads);
    } catch (e) {
      fill(box, el("p", { class: "problem" }, e.message));
    }
    for (const b of form.querySelectorAll("button")) b.disabled = false;
  };
  form.addEventListener("submit", (e) => { e.preventDefault(); run("GET"); });
  document.getElementById("ask").addEventListener("click", () => run("POST"));
  return {
    modules(config) {
      const chosen = select.value;
      payloads = config.payloads;
      fill(select, ...(config.modules || []).map((m) => el("option", { value: m.name + " " + m.version }, m.name + (m.version > 1 ? " v" + m.version : ""))));
      if (chosen) select.value = chosen;
    },
    open(module, version, key) {
      select.value = module + " " + version;
      form.elements.key.value = key;
      form.scrollIntoView({ block: "start" });
      run("GET");
    },
  };
}
