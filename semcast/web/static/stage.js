// Two pictures, one over the other, and a line between them that a slider moves.

import { rival, rows, sentence, fill } from "./words.js";
import { drawPlots } from "./heard.js";

const $ = (id) => document.getElementById(id);

export class Stage {
  constructor() {
    this.root = $("stage");
    this.results = {};
    this.figures = null;
    this.shown = new Map();
    $("split").addEventListener("input", () => this.root.style.setProperty("--at", $("split").value));
    $("beside").addEventListener("change", () => this.draw());
    $("overlay-on").addEventListener("change", () => this.draw());
  }

  /** Take the state of a link job. */
  take(state) {
    this.root.classList.toggle("busy", state.state === "waiting" || state.state === "running");
    if (!state.results.length) return;
    if (state.results[0].url !== this.results.sent?.url) {
      this.results = {};
      this.figures = null;
    }
    for (const result of state.results) this.results[result.name] = result;
    if (state.figures.channel_uses) this.figures = state.figures;
    this.draw();
  }

  draw() {
    const { sent, received, codec, television } = this.results;
    for (const [name, result] of Object.entries({ codec, television })) {
      const input = document.querySelector(`input[name=beside][value=${name}]`);
      input.disabled = !result && !input.checked;
    }
    if (codec) $("codec-name").textContent = codec.title;
    const choice = document.querySelector("input[name=beside]:checked").value;
    const beside = this.results[choice] || sent;
    if (beside) {
      this.put("left", beside);
      this.root.style.setProperty("--ratio", beside.width / beside.height);
      $("left-name").textContent = beside.title || (choice === "sent" ? "sent" : "");
      $("left").alt = beside === sent ? "The picture as it was sent" : `What ${beside.title} shows of it`;
    }
    if (received) this.put("right", received);
    const overlay = Object.values(this.results).find((result) => result.overlay);
    $("overlay-switch").hidden = !overlay;
    $("overlay").hidden = !(overlay && $("overlay-on").checked);
    if (overlay) this.put("overlay", overlay, false);
    if (received) {
      $("save").hidden = false;
      $("save").href = received.url;
      $("save").download = "received.png";
    }
    if (this.figures) {
      const told = choice !== "sent" && this.results[choice] ? rival(this.results[choice], this.figures) : sentence(this.figures);
      if ($("words").textContent !== told) $("words").textContent = told;
      fill($("figures"), rows(this.figures));
    }
    drawPlots($("link-plots"), Object.values(this.results));
  }

  /** Show a picture once it is decoded, so that nothing flickers. */
  async put(id, result, uncover = true) {
    if (this.shown.get(id) === result.url) return;
    this.shown.set(id, result.url);
    const next = new Image();
    next.src = result.url;
    try {
      await next.decode();
    } catch {
      return;
    }
    if (this.shown.get(id) !== result.url) return;
    $(id).src = result.url;
    if (uncover) $(id).hidden = false;
  }
}
