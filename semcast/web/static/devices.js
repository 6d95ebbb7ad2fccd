// Camera and microphone of the visitor's machine.

const $ = (id) => document.getElementById(id);

/** Let the visitor take a photo; calls `taken` with it. Without a camera here, the file chooser opens. */
export function connectCamera(taken) {
  const dialog = $("camera-dialog");
  const video = $("viewfinder");
  const stop = () => {
    for (const track of video.srcObject?.getTracks() || []) track.stop();
    video.srcObject = null;
  };
  $("camera").addEventListener("click", async () => {
    try {
      const wish = { video: { facingMode: "environment", width: { ideal: 1600 } } };
      video.srcObject = await navigator.mediaDevices.getUserMedia(wish);
    } catch {
      $("file").setAttribute("capture", "environment"); // a telephone opens its own camera
      $("file").click();
      $("file").removeAttribute("capture");
      return;
    }
    dialog.showModal();
    video.play().catch(() => {});  // the dialog may close before it begins
  });
  $("shutter").addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => blob && taken(blob), "image/jpeg", 0.95);
    dialog.close();
  });
  $("camera-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);
}

/** A recording from the microphone: `stop()` resolves to a WAV. `level` is called with 0 to 1 and the seconds so far. */
export async function record(level) {
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  const context = new AudioContext();
  await context.audioWorklet.addModule("/static/recorder.js");
  const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const pieces = [];
  let length = 0;
  node.port.onmessage = ({ data }) => {
    pieces.push(data);
    length += data.length;
    level(Math.min(1, 3 * Math.sqrt(data.reduce((sum, v) => sum + v * v, 0) / data.length)), length / context.sampleRate);
  };
  context.createMediaStreamSource(stream).connect(node);
  return {
    async stop() {
      for (const track of stream.getTracks()) track.stop();
      const rate = context.sampleRate;
      await context.close();
      return wav(pieces, length, rate);
    },
  };
}

function wav(pieces, length, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * length));
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * length, true);
  let at = 44;
  for (const piece of pieces) {
    for (const value of piece) {
      view.setInt16(at, Math.max(-1, Math.min(1, value)) * 32767, true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}
