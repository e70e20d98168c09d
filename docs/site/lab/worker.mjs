/** The computing half of the lab, beside the page, so that the page answers while it computes: loads runtime and networks once,
 * and samples. It is asked by client.mjs: {id, job, ...} -> {id, progress | result | error}; {stop: id} ends a job. */

import * as d from "./diffusion.mjs";
import * as ort from "./runtime/ort.wasm.bundle.min.mjs";

const loaded = {};
const stopped = new Set();
const breath = () => new Promise((resolve) => setTimeout(resolve)); // lets a stop come in between two evaluations

/** The bytes of a file of the lab; a .gz is unpacked here, as not every server says that it is packed. */
async function fetchFile(name, told = () => {}) {
  const answer = await fetch(name).catch(() => ({ statusText: "no answer" }));
  if (!answer.ok) {
    throw new Error(
      `The file ${name} did not load (${answer.status ?? ""} ${answer.statusText}): check the connection, then try again.`,
    );
  }
  const parts = [];
  let size = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    told(size);
  }
  const blob = new Blob(parts);
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const packed = bytes[0] === 0x1f && bytes[1] === 0x8b;
  if (!packed) return bytes;
  return new Uint8Array(await new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

/** Something that is loaded once; what failed is tried anew when it is next asked for. */
function once(name, load) {
  loaded[name] ??= load().catch((error) => {
    delete loaded[name];
    throw error;
  });
  return loaded[name];
}

/** What tools/web_lab.py wrote of networks and files. */
const lab = () => once("lab.json", async () => JSON.parse(new TextDecoder().decode(await fetchFile("lab.json"))));

async function fetchTold(name, tell) {
  const bytes = (await lab()).files[name];
  const megabytes = (n) => (n / 1e6).toFixed(1);
  return fetchFile(name, (n) => tell({ text: `Loading ${name}: ${megabytes(n)} of ${megabytes(bytes)} MB` }));
}

async function runtime(tell) {
  const binary = await fetchTold("runtime/ort-wasm-simd-threaded.wasm.gz", tell);
  Object.assign(ort.env.wasm, { wasmBinary: binary, numThreads: 1 });
}

/** A network as a function (x_t, t, y) -> v, and how many times it was asked. */
function network(name, tell) {
  return once(name, async () => {
    const about = (await lab()).networks[name];
    const [bytes] = await Promise.all([fetchTold(about.file, tell), once("runtime", () => runtime(tell))]);
    tell({ text: "Preparing the network" });
    await breath();
    // Optimising the graph takes longer than it saves in the pictures of one visit.
    const session = await ort.InferenceSession.create(bytes, { graphOptimizationLevel: "disabled" });
    const shape = [1, 1, about.size, about.size];
    return async (x_t, t, y = about.none) => {
      await breath();
      const feeds = { x_t: new ort.Tensor("float32", x_t, shape), t: new ort.Tensor("float32", [t], [1]) };
      if (about.classes.length > 0) feeds.y = new ort.Tensor("int64", BigInt64Array.of(BigInt(y)), [1]);
      const found = await session.run(feeds);
      return found[session.outputNames[0]].data;
    };
  });
}

/** Walk a trajectory to its end, telling of each step; the images of all steps, or null where the job was stopped. */
async function walk(id, tell, denoiser, x_t, times, step, seed) {
  const states = [];
  const draw = (k) => d.normal(seed, k, x_t.length);
  for await (const state of d.trajectory(denoiser, x_t, times, step, draw)) {
    if (stopped.delete(id)) return null;
    states.push(state);
    tell({ text: `Step ${states.length} of ${times.length - 1}`, state });
  }
  return { x_0: states.at(-1).x_t, states };
}

const JOBS = {
  /** A picture from noise, by DPM-Solver++(2M), of class y with guidance w, in n steps. */
  async draw({ id, seed, y, w, n }, tell) {
    const net = await network("mednist", tell);
    const [D_y, D_none] = [d.networkDenoiser(net, y), d.networkDenoiser(net)];
    const denoiser = d.clipped(d.classifierFree(D_y, D_none, w));
    return walk(id, tell, denoiser, d.normal(seed, 0, 64 * 64), d.logSnrTimes(n), d.dpmpp2mStep, seed);
  },

  /** One evaluation: x_t and D(x_t, t) of a picture. */
  async look({ x_0, seed, t }, tell) {
    const net = await network("mednist", tell);
    const x_t = d.noisy(x_0, d.normal(seed, 0, x_0.length), t);
    return { x_t, x_0: await d.clipped(d.networkDenoiser(net))(x_t, t) };
  },

  /** What could stand where m is 0, by DiffPIR; the known pixels are taken as they are. */
  async fill({ id, x, m, seed, n }, tell) {
    const prior = d.clipped(d.networkDenoiser(await network("brain", tell)));
    const A = new d.Mask(m);
    const fitted = d.diffpir(prior, A, A.apply(x), 1e-3, 1);
    const times = d.logSnrTimes(n, -8, 8);
    return walk(id, tell, fitted, d.normal(seed, 0, x.length), times, d.diffpirStep, seed);
  },

  /** Noise to t_0, then n steps of ancestral sampling back: what the prior of the healthy makes of a patient. */
  async heal({ id, x, t_0, seed, n }, tell) {
    const prior = d.clipped(d.networkDenoiser(await network("brain", tell)));
    const x_t = d.noisy(x, d.normal(seed, 0, x.length), t_0);
    return walk(id, tell, prior, x_t, d.uniformTimes(n, t_0), d.ddpmStep, seed);
  },

  /** A scan of x on some lines of k-space, with noise, and at once the zero-filled picture. */
  async scan({ x, lines, sigma_y }) {
    const A = new d.KSpace(lines);
    const y = d.mix(1, A.apply(x), sigma_y, A.onLines(d.normal(0, 1000, 2 * x.length)));
    return { y, zeroFilled: A.adjoint(y) };
  },

  /** The picture that fits scan and prior, by DiffPIR. */
  async reconstruct({ id, y, lines, sigma_y, seed, n }, tell) {
    const prior = d.clipped(d.networkDenoiser(await network("brain", tell)));
    const fitted = d.diffpir(prior, new d.KSpace(lines), y, sigma_y, 0.3);
    const x_t = d.normal(seed, 0, y.length / 2);
    return walk(id, tell, fitted, x_t, d.logSnrTimes(n, -8, 8), d.diffpirStep, seed);
  },
};

self.onmessage = async ({ data }) => {
  if ("stop" in data) {
    stopped.add(data.stop);
    return;
  }
  const tell = (progress) => self.postMessage({ id: data.id, progress });
  try {
    self.postMessage({ id: data.id, result: await JOBS[data.job](data, tell) });
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error.message ?? error) });
  }
  stopped.delete(data.id);
};
