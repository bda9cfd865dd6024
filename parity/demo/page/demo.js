// Sends a dropped or chosen image, and shows what the four models say of it.
"use strict";

const find = (selector) => document.querySelector(selector);
const drop = find("#drop"), file = find("#file"), failure = find("#error"), answer = find("#answer");
const difference = (value) => (value >= 0.01 ? value.toFixed(3) : value === 0 ? "0" : value.toExponential(1));
let latest = 0;

file.addEventListener("change", () => file.files.length && classify(file.files[0]));
for (const type of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", type === "dragover");
    if (type === "drop" && event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  });
}

async function classify(image) {
  const mine = ++latest; // an answer that was overtaken by a later image is not shown
  drop.classList.add("busy");
  const [found, error] = await ask(image);
  if (mine !== latest) return;
  drop.classList.remove("busy");
  file.value = "";
  failure.hidden = !error;
  failure.textContent = error ?? "";
  answer.hidden = Boolean(error);
  if (!error) show(found, image.name);
}

async function ask(image) {
  const body = new FormData();
  body.append("image", image);
  try {
    const response = await fetch("classify", { method: "POST", body });
    const found = await response.json();
    return response.ok ? [found, null] : [null, found.error];
  } catch {
    return [null, "No answer: the file is too large, or the demo has ended."];
  }
}

function show(found, name) {
  const preview = find("#preview");
  preview.src = found.image;
  preview.alt = `${name}, as the models see it`;
  preview.hidden = false;
  document.querySelectorAll("section").forEach((section, i) => {
    const side = found.sides[i];
    section.querySelector("tbody").replaceChildren(...side.top.map(row));
    section.querySelector("output").textContent = difference(side.apart);
  });
  find("#between").textContent = difference(found.between);
}

function row(one) {
  const line = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = one.class;
  const bar = line.appendChild(document.createElement("td"));
  bar.className = "bar";
  const meter = bar.appendChild(document.createElement("meter"));
  meter.value = one.run;
  meter.setAttribute("aria-hidden", "true");
  line.prepend(name);
  for (const value of [one.run, one.file]) {
    const cell = line.appendChild(document.createElement("td"));
    cell.className = "number";
    cell.textContent = `${(100 * value).toFixed(2)} %`;
  }
  return line;
}
