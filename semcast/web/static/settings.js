// The controls: filled from what the server offers, read as settings of a job, kept in the address as a link to share.

const $ = (id) => document.getElementById(id);
const UNITS = { snr_db: "dB", snr3k_db: "dB", offset_hz: "Hz" };
const NUMBERS = ["snr_db", "rungs", "steps", "seed", "side", "snr3k_db", "offset_hz"];
const SHARED = ["channel", ...NUMBERS, "path", "profile"];
let channels = {};
let base = 8;

export function fillControls(about) {
  channels = about.channels;
  base = Math.min(8, about.top);
  const option = (value, words) => new Option(words, value);
  $("channel").replaceChildren(...Object.entries(channels).map(([name, c]) => option(name, `${name}: ${c.about}`)));
  $("path").replaceChildren(...Object.entries(about.paths).map(([name, words]) => option(name, `${name}: ${words}`)));
  $("side").replaceChildren(...about.limits.sides.map((side) => option(side, side)));
  $("side").value = about.limits.sides.includes(512) ? 512 : about.limits.sides[0];
  $("rungs").max = about.top;
  $("steps").max = about.limits.steps;
  takeLink();
  for (const name of NUMBERS) $(name).addEventListener("input", () => say(name));
  $("channel").addEventListener("change", () => showOptions());
  NUMBERS.forEach(say);
}

function say(name) {
  const shown = $(`${name}-shown`);
  if (!shown) return;
  const value = Number($(name).value);
  if (name === "rungs") shown.textContent = `${value} of ${$(name).max} rungs${value === base ? ", the base" : ""}`;
  else shown.textContent = `${value}${UNITS[name] ? ` ${UNITS[name]}` : ""}`.replace("-", "\u2212");
  if ($(name).type === "range") $(name).setAttribute("aria-valuetext", shown.textContent);
}

/** Inputs for the options of the chosen channel. */
function showOptions(given = {}) {
  const fields = Object.entries(channels[$("channel").value]?.options || {}).map(([key, o]) => {
    const label = document.createElement("label");
    label.className = "field";
    label.append(o.about.charAt(0).toUpperCase() + o.about.slice(1) + (o.unit ? ` (${o.unit})` : ""));
    const words = typeof o.default === "string";
    const input = document.createElement(words ? "select" : "input");
    if (words) input.append(...o.allowed.map((word) => new Option(word, word)));
    else Object.assign(input, { type: "number", min: o.allowed[0], max: o.allowed[1], step: "any", inputMode: "decimal" });
    input.value = given[key] ?? o.default;
    input.dataset.option = key;
    label.append(input);
    return label;
  });
  $("options").replaceChildren(...fields);
}

const numbers = (names) => Object.fromEntries(names.map((name) => [name, Number($(name).value)]));

function options() {
  const inputs = [...$("options").querySelectorAll("[data-option]")];
  return Object.fromEntries(inputs.map((input) => [input.dataset.option, input.type === "number" ? Number(input.value) : input.value]));
}

export const receiverSettings = () => numbers(["steps", "seed"]);

export const pictureSettings = (picture) => ({ picture, ...numbers(["side", "rungs", "steps", "seed"]) });

export const linkSettings = (picture) => ({
  ...pictureSettings(picture), channel: $("channel").value, options: options(), ...numbers(["snr_db"]),
});

export const radioSettings = (picture) => ({
  ...pictureSettings(picture), path: $("path").value, profile: $("profile").value, ...numbers(["snr3k_db", "offset_hz"]),
});

/** An address that holds the settings, never a picture. */
export function shareLink() {
  const query = new URLSearchParams(SHARED.map((name) => [name, $(name).value]));
  for (const [key, value] of Object.entries(options())) query.set(`option.${key}`, value);
  return `${location.origin}/?${query}`;
}

/** Take the settings that the page's own address holds; what is not allowed stays at its default. */
function takeLink() {
  const query = new URLSearchParams(location.search);
  for (const name of SHARED) {
    if (!query.has(name)) continue;
    const control = $(name);
    const before = control.value;
    control.value = query.get(name);
    if (!control.value || !control.checkValidity()) control.value = before;
  }
  const given = [...query].filter(([key]) => key.startsWith("option.")).map(([key, value]) => [key.slice(7), value]);
  showOptions(Object.fromEntries(given));
  if (["steps", "seed", "side"].some((name) => query.has(name))) $("more").open = true;
}
