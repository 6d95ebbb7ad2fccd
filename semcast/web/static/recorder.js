// Runs beside the page: hands over what the microphone hears, a tenth of a second at a time.

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Float32Array(4096);
    this.count = 0;
  }

  process([[samples]]) {
    if (!samples) return true;
    for (const value of samples) {
      this.piece[this.count++] = value;
      if (this.count === this.piece.length) {
        this.port.postMessage(this.piece.slice());
        this.count = 0;
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
