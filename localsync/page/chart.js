"use strict";
// Small drawing aids. All text goes through textContent: keys and values are
// visitors' data.

function el(tag, attrs, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs || {})) {
    if (k === "class") e.className = v; else if (v !== undefined) e.setAttribute(k, v);
  }
  for (const c of children) e.append(c instanceof Node ? c : document.createTextNode(String(c)));
  return e;
}

function fill(parent, ...children) {
  parent.replaceChildren(...children);
}

function facts(dl, rows) {
  fill(dl, ...rows.flatMap(([name, value, mood]) => [el("dt", {}, name), el("dd", mood ? { class: mood } : {}, value)]));
}

const fmt = {
  count(n) {
    for (const [size, sign] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
      if (n >= size) return (n / (sign === "k" ? 1e3 : size)).toFixed(1) + " " + sign;
    }
    return n >= 100 || Number.isInteger(n) ? Math.round(n).toString() : n.toFixed(1);
  },
  rate(n) { return fmt.count(n) + "/s"; },
  percent(x) {
    if (x === null) return "–";
    const p = 100 * x;
    return (p === 100 || p === 0 ? p : p > 99 ? Math.min(p, 99.99).toFixed(2) : p.toFixed(1)) + " %";
  },
  bytes(n) {
    for (const [size, sign] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
      if (n >= size) return (n / size).toFixed(1) + " " + sign;
    }
    return n + " B";
  },
  ns(n) {
    if (n < 1e6) return (n / 1e3).toFixed(0) + " µs";
    if (n < 1e9) return (n / 1e6).toFixed(n < 1e7 ? 1 : 0) + " ms";
    if (n < 120e9) return (n / 1e9).toFixed(1) + " s";
    if (n < 7200e9) return Math.round(n / 60e9) + " min";
    if (n < 172800e9) return (n / 3600e9).toFixed(1) + " h";
    return (n / 86400e9).toFixed(1) + " d";
  },
};

const W = 300, H = 64;

function svg(label) {
  const s = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  s.setAttribute("viewBox", `0 0 ${W} ${H}`);
  s.setAttribute("preserveAspectRatio", "none");
  s.setAttribute("role", "img");
  s.setAttribute("aria-label", label);
  return s;
}

function path(d, cls) {
  const p = document.createElementNS("http://www.w3.org/2000/svg", "path");
  p.setAttribute("d", d);
  p.setAttribute("class", cls);
  return p;
}

// x places the i-th of n points, the newest at the right edge. A minute's points
// fill the width; more are drawn closer together.
function x(i, n) { return W - (n - 1 - i) * (W / (Math.max(n, 30) - 1)); }

// stacked draws reads per second, one band per level.
function stacked(s, series, levels) {
  if (series.length < 2) return 0;
  const peak = Math.max(1e-9, ...series.map((p) => levels.reduce((a, l) => a + p[l], 0)));
  const y = (v) => H - (v / peak) * (H - 4);
  let base = series.map(() => 0);
  const bands = levels.map((l) => {
    const upper = series.map((p, i) => base[i] + p[l]);
    const at = (v, i) => `${x(i, series.length).toFixed(1)},${y(v).toFixed(1)}`;
    const d = "M" + upper.map(at).join("L") + "L" + base.map(at).reverse().join("L") + "Z";
    base = upper;
    return path(d, "l-" + l);
  });
  fill(s, ...bands);
  return peak;
}

// line draws a share between low and 1; low fits what there is to see.
function line(s, values) {
  const known = values.filter((v) => v !== null);
  let low = Math.min(1, ...known);
  low = low > 0.99 ? 0.99 : low > 0.9 ? 0.9 : low > 0.5 ? 0.5 : 0;
  let d = "";
  values.forEach((v, i) => {
    if (v === null) return;
    const y = 3 + (1 - (v - low) / (1 - low)) * (H - 6);
    d += (d === "" || values[i - 1] === null ? "M" : "L") + x(i, values.length).toFixed(1) + "," + y.toFixed(1);
  });
  fill(s, path(d, "rate"));
  return low;
}
