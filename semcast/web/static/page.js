// The page: what the visitor does leads to jobs, and their results to what is shown.

import { enter, forget, getBlob, listen, upload } from "./api.js";
import { connectCamera, record } from "./devices.js";
import { Growth } from "./growth.js";
import { Heard } from "./heard.js";
import { Progress } from "./progress.js";
import { fillControls, linkSettings, pictureSettings, radioSettings, receiverSettings, shareLink } from "./settings.js";
import { Stage } from "./stage.js";

const $ = (id) => document.getElementById(id);
const stage = new Stage();
const linkProgress = new Progress($("link-progress"));
const signalProgress = new Progress($("signal-progress"));
const receiveProgress = new Progress($("receive-progress"));
const signalHeard = new Heard($("signal-heard"), "The sound, its waterfall and the picture it carries will appear here.");
const receiveHeard = new Heard($("receive-heard"), "What another machine sent will appear here.");
let about = null;
let picture = "sample";

function complain(sentence) {
  $("page-error").textContent = sentence;
  $("page-error").hidden = false;
}

function send() {
  return linkProgress.run("link", linkSettings(picture), (state) => stage.take(state));
}

const growth = new Growth(new Progress($("growth-progress")), () => linkSettings(picture));

async function takePicture(blob, name) {
  linkProgress.cancel();
  linkProgress.wait("sending your photo to the server");
  try {
    picture = await upload(blob, about.limits.upload_bytes);
    $("picture-name").textContent = name;
    growth.clear();
    await send();
  } catch (error) {
    linkProgress.fail(error.message);
  }
}

async function takeRecording(blob) {
  receiveProgress.cancel();
  receiveProgress.wait("sending the file to the server");
  try {
    const settings = { upload: await upload(blob, about.limits.upload_bytes), ...receiverSettings() };
    receiveHeard.clear();
    await receiveProgress.run("decode", settings, (state) => receiveHeard.take(state));
  } catch (error) {
    receiveProgress.fail(error.message);
  }
}

function connectPicture() {
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) takePicture(file, file.name);
    $("file").value = "";
  });
  connectCamera((blob) => takePicture(blob, "Your photo"));
  let depth = 0;
  const dropping = (on) => $("stage").classList.toggle("dropping", on);
  addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; dropping(true); });
  addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) dropping(false); });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    dropping(false);
    const [file] = event.dataTransfer.files;
    if (!file) return;
    const sound = /^audio\//.test(file.type) || /\.(wav|flac|ogg|oga|sem)$/i.test(file.name);
    if (sound) $("receive").scrollIntoView();
    (sound ? takeRecording : takePicture)(file, file.name);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
    if (file) takePicture(file, "From the clipboard");
  });
}

function connectSettings() {
  $("settings").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  let later = 0;
  $("settings").addEventListener("change", (event) => {
    if (event.target === $("file") || !$("settings").checkValidity()) return;
    clearTimeout(later);
    later = setTimeout(send, 150);
  });
  $("share").addEventListener("click", async () => {
    const link = shareLink();
    history.replaceState(null, "", link);
    try {
      await navigator.clipboard.writeText(link);
      $("shared").textContent = "Copied. It holds the settings, not the picture.";
    } catch {
      $("shared").textContent = "The address of this page now holds the settings, not the picture.";
    }
  });
}

function connectSignal() {
  $("radio").addEventListener("submit", (event) => {
    event.preventDefault();
    signalHeard.clear();
    signalProgress.run("signal", radioSettings(picture), (state) => signalHeard.take(state));
  });
  $("frame").addEventListener("click", async () => {
    const last = await signalProgress.run("frame", pictureSettings(picture), () => {});
    if (!last) return;
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(await getBlob(last.results[0].url));
    anchor.download = last.results[0].file;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
  });
}

function connectReceive() {
  let running = null;
  $("recording").addEventListener("change", () => {
    const [file] = $("recording").files;
    if (file) takeRecording(file);
    $("recording").value = "";
  });
  const stop = async () => {
    const ended = running;
    running = null;
    $("record").textContent = "Record";
    $("record").setAttribute("aria-pressed", "false");
    $("level").hidden = true;
    takeRecording(await ended.stop());
  };
  $("record").addEventListener("click", async () => {
    if (running) return stop();
    try {
      running = await record((level, seconds) => {
        $("level").value = level;
        $("record-hint").textContent = `Recording, ${seconds.toFixed(0)} s. Stop when the transmission is over.`;
        if (running && seconds > about.limits.recording_s - 1) stop();
      });
    } catch {
      return receiveProgress.fail("the microphone cannot be used; a browser lends it to localhost and to HTTPS pages only");
    }
    $("record").textContent = "Stop and decode";
    $("record").setAttribute("aria-pressed", "true");
    $("level").hidden = false;
  });
}

async function start() {
  try {
    about = await enter();
  } catch (error) {
    return complain(`${error.message}.`);
  }
  fillControls(about);
  $("version").textContent = `semcast ${about.version}, model ${about.model}`;
  listen(complain);
  connectPicture();
  connectSettings();
  connectSignal();
  connectReceive();
  $("forget").addEventListener("click", async () => {
    await forget().catch(() => {});
    location.reload();
  });
  send();
}

start();
