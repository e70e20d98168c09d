/** Asks the worker. What it says of the processor that it computes on becomes the event "processor" of the window. */

let worker;
const LOST = "The lab did not start: a file did not load. Check the connection, then reload the page.";

function start() {
  worker = new Worker(new URL(`worker.mjs${location.search}`, import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => dispatchEvent(new CustomEvent("processor", { detail: data }));
}

/** The result of a job of worker.mjs; tell(progress) is called along the way, and signal, an AbortSignal, ends the job after
 * the evaluation that it is at. */
export function ask(job, given, tell = () => {}, signal = null) {
  if (!worker) start();
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve, reject) => {
    port1.onmessage = ({ data }) => {
      if ("progress" in data) return tell(data.progress);
      port1.close();
      return "error" in data ? reject(new Error(data.error)) : resolve(data.result);
    };
    worker.addEventListener("error", () => {
      worker = undefined;
      reject(new Error(LOST));
    });
    signal?.addEventListener("abort", () => port1.postMessage("stop"));
    worker.postMessage({ job, given }, [port2]);
  });
}
