/** The computing half of the lab, beside the page, so that the page answers while it computes. It is asked by client.mjs, which
 * sends {job, given} with a port: {progress}s go there, then {result} or {error}; a message from there ends the job. */

import * as d from "./diffusion.mjs";
import { network } from "./networks.mjs";

const prior = async (name, { tell }, y) => d.clipped(d.networkDenoiser(await network(name, tell), y));

/** Walk a trajectory to its end, telling of each step. */
async function walk(denoiser, x_t, times, step, seed, run) {
  const draw = (k) => d.normal(seed, k, x_t.length);
  let done = 0;
  let state;
  for await (state of d.trajectory(denoiser, x_t, times, step, draw)) {
    if (run.stopped) throw new Error("Stopped.");
    done += 1;
    run.tell({ text: `Step ${done} of ${times.length - 1}`, state });
  }
  return { x_0: state.x_t };
}

/** The picture that fits y = A x_0 + noise and the prior of healthy heads, by DiffPIR, from noise of this size. */
async function fit(A, y, sigma_y, weight, { seed, n }, size, run) {
  const fitted = d.diffpir(await prior("brain", run), A, y, sigma_y, weight);
  return walk(fitted, d.normal(seed, 0, size), d.logSnrTimes(n, -8, 8), d.diffpirStep, seed, run);
}

const JOBS = {
  /** A picture from noise, by DPM-Solver++(2M), of class y with guidance w, in n steps. */
  async draw({ seed, y, w, n }, run) {
    const net = await network("mednist", run.tell);
    const guided = d.classifierFree(d.networkDenoiser(net, y), d.networkDenoiser(net), w);
    return walk(d.clipped(guided), d.normal(seed, 0, 64 * 64), d.logSnrTimes(n), d.dpmpp2mStep, seed, run);
  },

  /** One evaluation: D(x_t, t) of a picture with noise. */
  async look({ x_0, seed, t }, run) {
    const denoiser = await prior("mednist", run);
    return { x_0: await denoiser(d.noisy(x_0, d.normal(seed, 0, x_0.length), t), t) };
  },

  /** What could stand where m is 0; the known pixels are taken as they are. */
  async fill({ x, m, ...walked }, run) {
    const A = new d.Mask(m);
    return fit(A, A.apply(x), 1e-3, 1, walked, x.length, run);
  },

  /** Noise to t_0, then n steps of ancestral sampling back: what the prior of the healthy makes of a patient. */
  async heal({ x, t_0, seed, n }, run) {
    const x_t = d.noisy(x, d.normal(seed, 0, x.length), t_0);
    return walk(await prior("brain", run), x_t, d.uniformTimes(n, t_0), d.ddpmStep, seed, run);
  },

  /** A scan of x on some lines of k-space, with noise, and at once the zero-filled picture. */
  async scan({ x, lines, sigma_y }) {
    const A = new d.KSpace(lines);
    const y = d.mix(1, A.apply(x), sigma_y, A.onLines(d.normal(0, 1000, 2 * x.length)));
    return { y, zeroFilled: A.adjoint(y) };
  },

  /** The picture that fits a scan. */
  async reconstruct({ y, lines, sigma_y, ...walked }, run) {
    return fit(new d.KSpace(lines), y, sigma_y, 0.3, walked, y.length / 2, run);
  },
};

self.onmessage = async ({ data: { job, given }, ports: [port] }) => {
  const run = { stopped: false, tell: (progress) => port.postMessage({ progress }) };
  port.onmessage = () => {
    run.stopped = true;
  };
  try {
    port.postMessage({ result: await JOBS[job](given, run) });
  } catch (error) {
    port.postMessage({ error: String(error.message ?? error) });
  }
};
