"use strict";
/* What both pages need. Everything from the data becomes text nodes or attributes, never markup. */
const DATA = window.CPTBENCH;
const SIGNED = new Set(DATA.signed);
const byId = (id) => document.getElementById(id);

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

function number(value, signed, digits) {
  if (value === null || value === undefined) return "–";
  let text = value.toFixed(digits === undefined ? 1 : digits);
  if (Number(text) === 0) text = text.replace("-", "");
  else if (signed && value > 0) text = "+" + text;
  return text.replace("-", "−");
}

/* Only pages of this site and https links are followed. */
function safeLink(address) {
  return /^(entries\/[A-Za-z0-9._-]+\.html|https:\/\/[^\s]+)$/.test(address) ? address : null;
}

function hashValues() {
  const values = {};
  for (const part of location.hash.slice(1).split("&")) {
    const at = part.indexOf("=");
    if (at > 0) {
      try { values[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1)); } catch (e) { /* not ours */ }
    }
  }
  return values;
}

function setHash(values) {
  const parts = Object.entries(values).filter(([, v]) => v).map(([k, v]) => k + "=" + encodeURIComponent(v));
  history.replaceState(null, "", parts.length ? "#" + parts.join("&") : location.pathname.split("/").pop() || "#");
}
