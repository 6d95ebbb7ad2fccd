// The server: requests, uploads, and jobs that are followed by server-sent events.

const followers = new Map(); // of a job's name: called with each of its states
const early = new Map(); // states of jobs that nobody follows yet

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer; is it still running?");
  }
  if (response.ok) return response;
  let sentence = `the server answered ${response.status}`;
  try {
    sentence = (await response.json()).error || sentence;
  } catch { /* no JSON: the proxy's own page */ }
  throw new Error(sentence);
}

/** Start a session, unless there is one; what the server offers. */
export const enter = async () => (await request("/api/session", { method: "POST" })).json();

export const getText = async (path) => (await request(path)).text();

export const getBlob = async (path) => (await request(path)).blob();

export async function upload(blob, limitBytes) {
  if (blob.size > limitBytes) throw new Error(`this file is larger than ${Math.floor(limitBytes / 2 ** 20)} MiB, the limit`);
  const headers = { "content-type": "application/octet-stream" };
  return (await (await request("/api/uploads", { method: "POST", body: blob, headers })).json()).upload;
}

export async function forget() {
  await request("/api/session", { method: "DELETE" });
}

/** Ask for a job; `follow` is called with each of its states until it has ended. Returns {done, cancel}. */
export async function ask(kind, settings, follow) {
  const headers = { "content-type": "application/json" };
  const response = await request("/api/jobs", { method: "POST", headers, body: JSON.stringify({ kind, settings }) });
  const first = await response.json();
  const done = new Promise((resolve) => {
    const take = (state) => {
      follow(state);
      if (!["waiting", "running"].includes(state.state)) {
        followers.delete(state.job);
        resolve(state);
      }
    };
    followers.set(first.job, take);
    take(early.get(first.job) || first);
    early.delete(first.job);
  });
  const cancel = () => request(`/api/jobs/${first.job}`, { method: "DELETE" }).catch(() => {});
  return { done, cancel };
}

/** Listen to the session's jobs; `lost` is called with a sentence when the session is over. */
export function listen(lost) {
  const events = new EventSource("/api/events");
  events.onmessage = (event) => {
    const state = JSON.parse(event.data);
    const follow = followers.get(state.job);
    if (follow) follow(state);
    else early.set(state.job, state);
    if (early.size > 50) early.delete(early.keys().next().value);
  };
  events.addEventListener("ended", () => {
    events.close();
    lost("This session is over, and its pictures are gone. Load the page again.");
  });
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) lost("The connection to the server is lost. Load the page again.");
  };
}
