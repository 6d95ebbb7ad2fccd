// The picture as the stream grows: one job a prefix, so that others get their turn in between.

import { seconds } from "./words.js";

const $ = (id) => document.getElementById(id);
const PREFIXES = [1, 2, 4, 8, 12, 16, 20, 24];

export class Growth {
  constructor(progress, settings) {
    Object.assign(this, { progress, settings, shown: [] });
    $("grow").addEventListener("click", () => this.run());
    $("prefix").addEventListener("input", () => this.show(Number($("prefix").value)));
  }

  clear() {
    this.progress.cancel();
    this.shown = [];
    $("growing").hidden = true;
    $("strip").replaceChildren();
  }

  async run() {
    this.clear();
    const top = Number($("rungs").max);
    const settings = this.settings();
    for (const rungs of PREFIXES.filter((prefix) => prefix <= top)) {
      const last = await this.progress.run("prefix", { ...settings, rungs }, () => {});
      if (!last) return;
      this.add(last);
    }
  }

  add({ results: [picture], figures }) {
    this.shown.push({ picture, figures });
    const item = document.createElement("li");
    const image = new Image(picture.width, picture.height);
    image.src = picture.url;
    image.alt = `With ${figures.rungs} of the rungs`;
    item.append(image, `${figures.rungs} \u00b7 ${seconds(figures.seconds)}`);
    $("strip").append(item);
    $("growing").hidden = false;
    $("prefix").max = this.shown.length - 1;
    this.show(this.shown.length - 1);
  }

  show(index) {
    const { picture, figures } = this.shown[index];
    $("prefix").value = index;
    $("grown").src = picture.url;
    $("grown").alt = `The picture after ${figures.rungs} rungs`;
    [$("grown").width, $("grown").height] = [picture.width, picture.height];
    $("prefix-shown").textContent = `${figures.rungs} rungs, ${seconds(figures.seconds)}`;
    $("prefix").setAttribute("aria-valuetext", $("prefix-shown").textContent);
    const quality = figures.ms_ssim == null ? "" : ` MS-SSIM is ${figures.ms_ssim.toFixed(3)}.`;
    $("prefix-words").textContent = `${figures.channel_uses} symbols, ${(100 * figures.element_ratio).toPrecision(2)} % of the picture's numbers.${quality}`;
    [...$("strip").children].forEach((item, i) => item.classList.toggle("now", i === index));
  }
}
