// What a job of the radio found: pictures, sounds, waterfall, plots, and words.

import { getBlob, getText } from "./api.js";
import { fill, report, reportRows, rows, seconds } from "./words.js";

const TITLES = {
  constellation: "Constellation: each dot is a symbol that arrived",
  response: "Channel: gain over noise of each symbol",
  "radio-response": "Channel: gain over time, and over frequency upwards",
};

/** Draw those plots among the results that are not there yet. */
export function drawPlots(root, results) {
  const plots = results.filter((result) => result.name in TITLES);
  for (const old of [...root.children]) if (!plots.some((plot) => plot.url === old.dataset.url)) old.remove();
  for (const plot of plots) {
    if ([...root.children].some((child) => child.dataset.url === plot.url)) continue;
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    figure.dataset.url = plot.url;
    caption.textContent = TITLES[plot.name];
    figure.append(caption);
    root.append(figure);
    if (plot.type === "image/svg+xml") {
      getText(plot.url).then((text) => {
        const drawn = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
        figure.prepend(document.importNode(drawn, true));
      }, () => figure.remove());
    } else {
      const image = new Image();
      image.src = plot.url;
      image.alt = TITLES[plot.name];
      figure.prepend(image);
    }
  }
}

export class Heard {
  constructor(root, hint) {
    this.root = root;
    root.append(document.getElementById("heard-template").content.cloneNode(true));
    this.part = (name) => root.querySelector(name);
    this.empty = document.createElement("p");
    this.empty.className = "empty";
    this.empty.textContent = hint;
    root.prepend(this.empty);
    this.seen = new Set();
  }

  clear() {
    this.seen.clear();
    for (const name of [".pictures", ".players", ".plots", ".figures"]) this.part(name).replaceChildren();
    this.part(".words").textContent = "";
    this.part(".waterfall").hidden = true;
  }

  /** Take the state of a job. */
  take(state) {
    for (const result of state.results) {
      if (this.seen.has(result.url)) continue;
      this.seen.add(result.url);
      this.empty.hidden = true;
      if (result.name === "sent" || result.name === "received") this.picture(result);
      else if (result.type === "audio/wav") this.player(result);
      else if (result.name === "waterfall") this.waterfall(result);
    }
    drawPlots(this.part(".plots"), state.results);
    const heard = state.figures.transmissions?.[0];
    this.part(".words").textContent = heard ? report(heard, state.figures.transmissions.length) : "";
    const cost = state.figures.channel_uses ? rows(state.figures) : [];
    fill(this.part(".figures"), [...cost, ...(heard ? reportRows(heard) : [])]);
  }

  picture(result) {
    const figure = document.createElement("figure");
    const image = new Image(result.width, result.height);
    const caption = document.createElement("figcaption");
    image.src = result.url;
    image.alt = result.name === "sent" ? "The picture as it was sent" : "The picture as it was received from the sound";
    caption.textContent = result.name === "sent" ? "Sent" : "Received ";
    if (result.name === "received") caption.append(link(result.url, "received.png", "Download"));
    figure.append(image, caption);
    this.part(".pictures").append(figure);
  }

  async player(result) {
    const root = document.createElement("div");
    const title = document.createElement("span");
    const audio = document.createElement("audio");
    root.className = "player";
    title.textContent = `${result.name === "sound" ? "As sent" : "As it arrives"}, ${seconds(result.seconds)}`;
    audio.controls = true;
    audio.setAttribute("aria-label", `Play the sound ${result.name === "sound" ? "as sent" : "as it arrives"}`);
    root.append(title);
    if (result.file) root.append(link(result.url, result.file, "Download WAV"));
    root.append(audio);
    this.part(".players").append(root);
    try {
      audio.src = URL.createObjectURL(await getBlob(result.url)); // of a blob any place can be played from
    } catch {
      root.remove();
    }
    audio.addEventListener("play", () => this.follow(audio));
  }

  waterfall(result) {
    const figure = this.part(".waterfall");
    figure.hidden = false;
    figure.querySelector("img").src = result.url;
    figure.querySelector("img").alt = `Waterfall of ${seconds(result.seconds)} of sound, from 0 to ${result.high_hz / 1000} kHz upwards`;
    figure.querySelector("figcaption").textContent =
      `Waterfall: ${seconds(result.seconds)} from left to right, 0 to ${result.high_hz / 1000} kHz upwards`;
  }

  /** Move a line over the waterfall while a sound plays. */
  follow(audio) {
    const head = this.part(".playhead");
    const move = () => {
      head.hidden = audio.paused;
      head.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
      if (!audio.paused) requestAnimationFrame(move);
    };
    move();
  }
}

function link(href, file, words) {
  const anchor = document.createElement("a");
  anchor.href = href;
  anchor.download = file;
  anchor.textContent = words;
  return anchor;
}
