/** Asks the worker. */

let worker;
let last = 0;
const waiting = new Map();
const LOST = "The lab did not start: a file did not load. Check the connection, then reload the page.";

function start() {
  worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => {
    const { tell, resolve, reject } = waiting.get(data.id);
    if ("progress" in data) return tell(data.progress);
    waiting.delete(data.id);
    return "error" in data ? reject(new Error(data.error)) : resolve(data.result);
  };
  worker.onerror = () => {
    for (const { reject } of waiting.values()) reject(new Error(LOST));
    waiting.clear();
    worker = undefined;
  };
}

/** The result of a job of worker.mjs, null where it was stopped; tell(progress) is called along the way. given.id, from nextId,
 * is for a job that is to be stopped. */
export function ask(job, given, tell = () => {}) {
  if (!worker) start();
  const id = given.id ?? nextId();
  return new Promise((resolve, reject) => {
    waiting.set(id, { tell, resolve, reject });
    worker.postMessage({ ...given, id, job });
  });
}

/** A number for a job that is to be stopped. */
export const nextId = () => ++last;

/** End a job after the evaluation that it is at. */
export const stop = (id) => worker?.postMessage({ stop: id });
