// Single keys press what has data-key; N or Enter goes to the note. Without this file the page works by clicks.
"use strict";

function ready(act) {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", act);
  else act();
}

function press(key) {
  const found = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key);
  if (!found) return;
  if (found.matches("textarea")) {
    found.focus();
    return found.setSelectionRange(found.value.length, found.value.length);
  }
  found.disabled = false;
  found.click();
}

document.addEventListener("keydown", (event) => {
  const at = event.target, box = document.getElementById("keys");
  if (at.matches("textarea") && event.key === "Escape") return at.blur();
  if (at.matches("textarea, input:not([type=checkbox])") || (box && !box.checked)) return;
  if (event.repeat || event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Enter" && at.matches("a, button, summary, input")) return;
  const key = event.key === "Enter" ? "n" : event.key.toLowerCase();
  if (!"abtsnu".includes(key)) return;
  event.preventDefault();
  ready(() => press(key));
});

ready(() => {
  const box = document.getElementById("keys");
  if (!box) return;
  box.closest("label").hidden = false;
  box.checked = localStorage.getItem("charter-keys") !== "off";
  box.addEventListener("change", () => localStorage.setItem("charter-keys", box.checked ? "on" : "off"));
  // The second half of a double click would fall on the next pair, unread.
  const buttons = document.querySelectorAll("form.verdict button");
  buttons.forEach((button) => { button.disabled = true; });
  setTimeout(() => buttons.forEach((button) => { button.disabled = false; }), 250);
});
