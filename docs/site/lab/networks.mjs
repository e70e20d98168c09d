/**
 * The networks of the lab as functions (x_t, t, y) -> v: on the graphics processor (WebGPU) where there is one that answers
 * rightly and quickly, else on the processor (WebAssembly, one thread). Which of them it is, is posted to the page.
 */

import { normal } from "./diffusion.mjs";
import { load, loadAbout } from "./files.mjs";
import * as processor from "./runtime/ort.wasm.bundle.min.mjs";

const TOLERANCE = 1e-3; // of v in any pixel, between the graphics processor and PyTorch
const SLOW = 1000; // milliseconds an evaluation: the processor of a slow phone needs less

const loaded = {};
let refused; // why the graphics processor is not, or no longer, used

/** Something that is loaded once; what failed is tried anew when it is next asked for. */
function once(name, make) {
  loaded[name] ??= make().catch((error) => {
    delete loaded[name];
    throw error;
  });
  return loaded[name];
}

const about = () => once("lab.json", loadAbout);

async function loadTold(name, tell) {
  const bytes = (await about()).files[name];
  const megabytes = (n) => (n / 1e6).toFixed(1);
  return load(name, (n) => tell({ text: `Loading ${name}: ${megabytes(n)} of ${megabytes(bytes)} MB` }));
}

/** A runtime gets its WebAssembly. */
const prepare = (runtime, binary, tell) =>
  once(binary, async () => {
    Object.assign(runtime.env.wasm, { wasmBinary: await loadTold(`runtime/${binary}.gz`, tell), numThreads: 1 });
  });

/** A network in a runtime, of which the module is there. */
async function sessionOf(runtime, binary, { size, none, loading }, options, tell) {
  const [bytes] = await Promise.all([loading, prepare(runtime, binary, tell)]);
  tell({ text: "Preparing the network" });
  const session = await runtime.InferenceSession.create(bytes, options);
  return async (x_t, t, y = none) => {
    const tensor = (type, values, shape = [1]) => new runtime.Tensor(type, values, shape);
    const feeds = { x_t: tensor("float32", x_t, [1, 1, size, size]), t: tensor("float32", [t]) };
    if (session.inputNames.includes("y")) feeds.y = tensor("int64", BigInt64Array.of(BigInt(y)));
    return (await session.run(feeds))[session.outputNames[0]].data;
  };
}

async function onProcessor(net, why, tell) {
  // Optimising the graph takes longer than it saves in the pictures of one visit.
  const options = { graphOptimizationLevel: "disabled" };
  const evaluate = await sessionOf(processor, "ort-wasm-simd-threaded.wasm", net, options, tell);
  self.postMessage(`Computes on the processor of this device (WebAssembly), not on a graphics processor: ${why}.`);
  return evaluate;
}

/** Throws where the graphics processor is missing, does not start, answers wrongly or slowly; so does, later, the network that
 * it gives where the device was lost. */
async function onGraphics(net, tell) {
  if (refused) throw new Error(refused);
  if (self.location.search === "?processor") throw new Error("the page was asked for so");
  const adapter = WebAssembly.Suspending && (await navigator.gpu?.requestAdapter());
  if (!adapter || adapter.info.isFallbackAdapter) throw new Error("this browser offers none (WebGPU with JSPI)");
  const runtime = await import("./runtime/ort.jspi.bundle.min.mjs");
  // Optimised, since else each evaluation would turn float16 weights to float32, which not every device can.
  const options = { executionProviders: ["webgpu"], graphOptimizationLevel: "basic" };
  const evaluate = await sessionOf(runtime, "ort-wasm-simd-threaded.jspi.wasm", net, options, tell);
  const { lost } = await runtime.env.webgpu.device;
  const fail = () => Promise.reject(new Error("it was lost"));
  const guarded = (...given) => Promise.race([evaluate(...given), lost.then(fail)]);
  const x_t = normal(0, 0, net.size ** 2);
  const v = await guarded(x_t, 0.5); // the first evaluation prepares the device, the second shows how quick it is
  const answer = new Float32Array((await loadTold(net.answer, tell)).buffer);
  const apart = v.reduce((most, value, i) => Math.max(most, Math.abs(value - answer[i])), 0);
  if (!(apart < TOLERANCE)) throw new Error(`its first answer was wrong by ${apart.toPrecision(2)}`);
  const begin = performance.now();
  await guarded(x_t, 0.5);
  const took = performance.now() - begin;
  if (took > SLOW) throw new Error(`an evaluation took ${(took / 1000).toFixed(1)} s`);
  self.postMessage("Computes on the graphics processor of this device (WebGPU).");
  return guarded;
}

/** A network by name. tell({text}) is called while it loads. */
export function network(name, tell) {
  return once(name, async () => {
    const net = { ...(await about()).networks[name] };
    net.loading = loadTold(net.file, tell);
    const fallBack = async ({ message }) => {
      const evaluate = await once(`${name} on the processor`, () => onProcessor(net, refused ?? message, tell));
      refused ??= message; // only now: where the network did not load, that was no fault of the graphics processor
      net.loading = null; // its bytes were kept for this case alone
      return evaluate;
    };
    let evaluate = await onGraphics(net, tell).catch(fallBack);
    return async (...given) => {
      await new Promise((resolve) => setTimeout(resolve)); // lets a stop come in between two evaluations
      try {
        return await evaluate(...given);
      } catch (error) {
        evaluate = await fallBack(error);
        return evaluate(...given);
      }
    };
  });
}
