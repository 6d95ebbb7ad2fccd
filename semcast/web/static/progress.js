// A place that shows how far a job is, lets it be cancelled, and says in one sentence what went wrong.

import { ask } from "./api.js";

export class Progress {
  constructor(root) {
    this.root = root;
    root.append(document.getElementById("progress-template").content.cloneNode(true));
    this.words = root.querySelector(".progress-words");
    this.bar = root.querySelector("progress");
    this.error = root.querySelector(".error");
    this.turn = 0;
    root.querySelector(".cancel").addEventListener("click", () => this.cancel());
  }

  get active() {
    return this.root.classList.contains("active");
  }

  /** Show work of which it is not known how long it takes. */
  wait(words) {
    this.root.classList.remove("failed");
    this.error.hidden = true;
    this.root.classList.add("active");
    this.bar.removeAttribute("value");
    this.words.textContent = words;
  }

  finish() {
    this.root.classList.remove("active");
  }

  fail(sentence) {
    this.finish();
    this.root.classList.add("failed");
    this.error.textContent = sentence.charAt(0).toUpperCase() + sentence.slice(1) + ".";
    this.error.hidden = false;
  }

  cancel() {
    this.turn += 1;
    this.job?.cancel();
    this.job = null;
    this.finish();
  }

  /** Run a job in place of the one that may still run; returns its last state, or null if that is not "done". */
  async run(kind, settings, follow) {
    this.job?.cancel();
    const turn = ++this.turn;
    this.wait("asking");
    try {
      const job = await ask(kind, settings, (state) => {
        if (turn !== this.turn) return;
        this.show(state);
        follow(state);
      });
      if (turn !== this.turn) {
        job.cancel();
        return null;
      }
      this.job = job;
      const last = await job.done;
      if (turn !== this.turn) return null;
      this.job = null;
      this.finish();
      if (last.state === "refused" || last.state === "failed") this.fail(last.error);
      return last.state === "done" ? last : null;
    } catch (error) {
      if (turn === this.turn) this.fail(error.message);
      return null;
    }
  }

  show(state) {
    if (state.state === "waiting") {
      this.bar.removeAttribute("value");
      const people = state.ahead === 1 ? "1 job is" : `${state.ahead} jobs are`;
      this.words.textContent = state.ahead ? `${people} ahead of yours, about ${Math.ceil(state.wait_s)} s` : "next in line";
    } else if (state.state === "running") {
      this.bar.value = state.share;
      this.words.textContent = state.words || "starting";
    }
  }
}
