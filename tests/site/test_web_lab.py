"""The lab in the page: its mathematics, its networks and its stations in a real browser, against the library in Python.

Needs Chromium or Chrome on the PATH; without one the tests of the page are skipped, but in continuous integration
(CI=true) they fail.
"""

import functools
import os
import re

import lab_server
import numpy as np
import pytest
import torch
import web_lab
from simulated_device import DEVICE, simulated_device

from course_lib import guidance, inverse, pretrained, samplers, schedules
from course_lib.denoisers import FunctionDenoiser, GaussianDenoiser
from course_lib.operators import KSpace, Mask

PATIENCE = 120_000  # milliseconds, however busy the machine is
STARTED = "document.getElementById('trouble').hidden"
SMALL_SIDE = 8  # of the k-space whose transform is compared


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The lab as `start.py site` writes it, in a temporary folder; served on 127.0.0.1. Gives folder and address."""
    folder = tmp_path_factory.mktemp("lab")
    web_lab.write(folder)
    with lab_server.served(folder) as address:
        yield folder, address


@pytest.fixture(scope="module")
def page(chromium, lab):
    """The lab opened in the browser, as on a phone; `page.asked` are the addresses that it asked for."""
    with chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.asked, page.troubles = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.goto(lab[1])
        page.wait_for_function(STARTED)
        yield page


def call(page, body, *arguments):
    """What JavaScript gives, with `d` the module diffusion.mjs and `f` making an array of doubles."""
    head = "const d = await import('./diffusion.mjs'), f = (x) => Float64Array.from(x);"
    return page.evaluate(f"async (given) => {{ {head} {body} }}", list(arguments))


# The files ---------------------------------------------------------------------------------------------------------


def test_it_is_small_enough_for_a_phone(lab):
    sizes = {path.relative_to(lab[0]).as_posix(): path.stat().st_size for path in lab[0].rglob("*") if path.is_file()}
    assert sizes["mednist.onnx"] < 16e6 and sizes["brain.onnx"] < 16e6
    assert sum(sizes.values()) - sizes["brain.onnx"] < 30e6  # what the first station loads
    assert "MIT License" in (lab[0] / "runtime" / "LICENSE.txt").read_text()


def test_weights_are_stored_small_and_come_back_to_the_last_digit():
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(0)
    whole, scale = rng.integers(-127, 128, (64, 64)).astype(np.int8), rng.random((64, 1)).astype(np.float32)
    weights = {"half": rng.random((64, 64)).astype(np.float16).astype(np.float32), "eight": whole * scale}
    weights["full"] = rng.random((64, 64)).astype(np.float32)
    names = ["x", "a", "b", "c"]
    nodes = [helper.make_node("MatMul", [names[k], key], [names[k + 1]]) for k, key in enumerate(weights)]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 64]) for name in ("x", "c")]
    graph = helper.make_graph(
        nodes, "three", ends[:1], ends[1:], [numpy_helper.from_array(w, k) for k, w in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    x, size = rng.random((1, 64)).astype(np.float32), model.ByteSize()
    before = ReferenceEvaluator(model).run(None, {"x": x})[0]
    web_lab.shrink(model, {(whole * scale).tobytes(): (whole, scale)})
    onnx.checker.check_model(model, full_check=True)
    assert (ReferenceEvaluator(model).run(None, {"x": x})[0] == before).all()
    assert model.ByteSize() < size * (1 / 2 + 1 / 4 + 1) / 3 + 1500


def test_the_answer_of_a_network_leaves_the_loaded_one_on_its_device(monkeypatch):
    class Twice(torch.nn.Linear):
        num_classes = 0

        def forward(self, x, t):
            return self.weight * x

    with simulated_device():
        net = Twice(1, 1).requires_grad_(False).to(DEVICE)
        monkeypatch.setattr(pretrained, "load", lambda name: net)
        monkeypatch.setattr(pretrained, "card", lambda name: {"image_size": 8})
        found = web_lab.answer("any")
        np.testing.assert_allclose(found, float(net.weight.cpu()) * web_lab.normal(0, 0, 64), rtol=1e-6)
        assert net.weight.device.type == DEVICE


def test_another_runtime_than_the_pinned_one_is_refused(tmp_path, monkeypatch):
    other = tmp_path / "onnxruntime-web-1.0.0.tgz"
    other.write_bytes(b"another")
    with pytest.raises(ValueError, match="is not version"):
        web_lab.pack_runtime(other)
    name = "ort.wasm.bundle.min.mjs"
    monkeypatch.setitem(web_lab.RUNTIME["files"], name, "0" * 64)
    with pytest.raises(ValueError, match=name):
        web_lab.runtime_files()


def test_the_page_lists_classes_and_lesions_as_the_networks_and_the_heads_have_them():
    """The options are written in index.html, in a reader's words, in the order of classes and families."""
    page = (web_lab.SOURCE / "index.html").read_text(encoding="utf-8")
    words = {"ChestCT": "Chest (CT)", "CXR": "Chest (X-ray)", "Hand": "Hand (X-ray)", "HeadCT": "Head (CT)"}
    words |= {"AbdomenCT": "Abdomen (CT)", "BreastMRI": "Breast (MRI)"}
    words |= {"hyper": "bright", "hypo": "dark", "mass": "a mass that pushes", "tiny": "tiny, bright"}
    for names, times in ((pretrained.card("mednist")["classes"], 3), (web_lab.FAMILIES, 2)):
        lists = [re.sub(r"\n|<option value=\"\d\"( selected)?>", "", found) for found in lists_of(page)]
        assert lists.count("".join(f"{words[name]}</option>" for name in names)) == times


def lists_of(page):
    """What stands between <select> and </select>, each time."""
    return re.findall(r"<select[^>]*>(.*?)</select>", page, re.DOTALL)


# Noise -------------------------------------------------------------------------------------------------------------

# Known answers of Philox4x32-10, of the authors' Random123 library: counter, key, words
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_random_words_are_those_of_the_authors(page, counter, key, words):
    assert web_lab.philox([counter], key)[0].tolist() == words
    assert call(page, "return d.philox(...given)", counter, key) == words


def test_noise_is_the_same_in_both_languages_and_is_noise(page):
    for seed, stream in ((0, 0), (7, 3), (9999, 1000)):
        theirs = call(page, "return [...d.normal(...given)]", seed, stream, 9218)
        np.testing.assert_allclose(theirs, web_lab.normal(seed, stream, 9218), rtol=0, atol=1e-6)
    z = np.stack([web_lab.normal(seed, stream, 9216) for seed in range(5) for stream in range(5)])
    assert abs(z.mean()) < 4 / z.size**0.5 and abs(z.var() - 1) < 4 * (2 / z.size) ** 0.5
    assert abs(np.corrcoef(z) - np.eye(len(z))).max() < 5 / 9216**0.5


# Schedule, steps, guidance, operators, on the exact Gaussian -------------------------------------------------------

COSINE = schedules.Cosine()
MEAN = torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64)
VARIANCE = torch.tensor([0.04, 0.3, 1.0], dtype=torch.float64)
EXACT = GaussianDenoiser(MEAN, torch.diag(VARIANCE), COSINE)
X_T = torch.tensor([[0.4, -1.2, 0.7]], dtype=torch.float64)
Z = torch.tensor([[-0.6, 0.2, 1.5]], dtype=torch.float64)
# D of N(mean, variance), pixel by pixel
EXACT_JS = """const exact = (m, v) => async (x, t) => x.map((u, i) => {
    const a = d.alpha(t), gain = a * v[i] / (a * a * v[i] + d.sigma(t) ** 2);
    return m[i] + gain * (u - a * m[i]);
});"""


def numbers(x):
    return x.flatten().tolist()


def test_schedule_and_times_are_those_of_the_library(page):
    t = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    theirs = call(page, "return [d.alpha, d.sigma, d.logSnr].map((f) => given[0].map(f))", numbers(t))
    torch.testing.assert_close(
        torch.tensor(theirs).double(), torch.stack([COSINE.alpha(t), COSINE.sigma(t), COSINE.log_snr(t)])
    )
    for n in (1, 2, 15):
        for low, high in ((-10, 10), (-8, 8)):
            ours = schedules.log_snr_times(COSINE, n, low, high)
            theirs = call(page, "return d.logSnrTimes(...given)", n, low, high)
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            call(page, "return d.uniformTimes(...given)", n), schedules.uniform_times(n), atol=1e-12
        )


STEPS = {
    "ddimStep": samplers.ddim_step,
    "dpmpp2mStep": samplers.dpmpp_2m_step,
    "ddpmStep": samplers.ddpm_step,
    "diffpirStep": functools.partial(inverse.diffpir_step, zeta=1.0),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(("t", "s"), [(0.9, 0.6), (0.5, 0.45), (0.2, 0.0)])
@pytest.mark.parametrize("first", [True, False])
def test_each_step_is_that_of_the_library(page, monkeypatch, name, t, s, first):
    for module in (samplers, inverse):
        monkeypatch.setattr(module, "noise_like", lambda x, generator: Z)
    past = None if first else samplers.Previous(0.95, Z / 2, X_T)
    x_s, x_0 = STEPS[name](EXACT, X_T, t, s, previous=past)
    body = """const [name, m, v, x_t, t, s, past, z] = given;
    const previous = past && { t: past[0], x_0: f(past[1]) };
    const found = await d[name](exact(m, v), f(x_t), t, s, previous, () => f(z));
    return [[...found.x_s], [...found.x_0]];"""
    previous = None if first else [past.t, numbers(past.x_0)]
    given = (name, numbers(MEAN), numbers(VARIANCE), numbers(X_T), t, s, previous, numbers(Z))
    theirs = torch.tensor(call(page, EXACT_JS + body, *given), dtype=torch.float64)
    torch.testing.assert_close(theirs, torch.cat([x_s, x_0]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "order"), [("ddimStep", 1), ("dpmpp2mStep", 2)])
def test_a_walk_ends_where_the_flow_of_the_gaussian_does(page, name, order):
    """The closed form: (x_s - alpha_s m) / (x_t - alpha_t m) is the ratio of the standard deviations at s and t. Half
    the step leaves 2^-order of the error."""
    body = """const [name, m, v, x_t, n] = given;
    const times = [...Array(n + 1).keys()].map((k) => d.timeOf(-4 + 8 * k / n));
    let last;
    for await (const state of d.trajectory(exact(m, v), f(x_t), times, d[name], () => null)) last = state;
    return [...last.x_t];"""
    t, s = COSINE.time(torch.tensor([-4.0, 4.0], dtype=torch.float64))
    std_t, std_s = ((COSINE.alpha(u) ** 2 * VARIANCE + COSINE.sigma(u) ** 2).sqrt() for u in (t, s))
    closed = COSINE.alpha(s) * MEAN + (X_T[0] - COSINE.alpha(t) * MEAN) * std_s / std_t
    found = [call(page, EXACT_JS + body, name, numbers(MEAN), numbers(VARIANCE), numbers(X_T), n) for n in (40, 80)]
    coarse, fine = ((torch.tensor(x).double() - closed).abs().max() for x in found)
    assert fine < 0.02 and 0.8 * 2**order < coarse / fine < 1.25 * 2**order


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0, -1.0])
def test_guidance_is_that_of_the_library(page, w):
    other = GaussianDenoiser(-MEAN, torch.diag(VARIANCE), COSINE)
    told = FunctionDenoiser(lambda x, t, y: torch.stack([(EXACT, other)[k](x[i], t) for i, k in enumerate(y)]), COSINE)
    ours = guidance.Clipped(guidance.ClassifierFree(told, none=1, w=w))(X_T, 0.4, y=torch.tensor([0]))
    body = """const [m, v, x_t, w] = given;
    const [D_y, D_none] = [exact(m, v), exact(m.map((u) => -u), v)];
    return [...await d.clipped(d.classifierFree(D_y, D_none, w))(f(x_t), 0.4)];"""
    theirs = call(page, EXACT_JS + body, numbers(MEAN), numbers(VARIANCE), numbers(X_T), w)
    np.testing.assert_allclose(theirs, ours[0], rtol=0, atol=1e-12)


def operator_cases():
    """Operators, what they are in JavaScript, and a measurement."""
    generator = torch.Generator().manual_seed(0)
    m = (torch.rand(1, 1, SMALL_SIDE, SMALL_SIDE, generator=generator) > 0.5).double()
    lines = torch.tensor([0.0, 1, 0, 1, 1, 1, 0, 1])  # its own mirror image about column 4
    shape = (1, 1, SMALL_SIDE, SMALL_SIDE)
    y = torch.randn(shape, generator=generator, dtype=torch.float64)
    z = torch.complex(y, torch.randn(shape, generator=generator, dtype=torch.float64))
    return {"Mask": (Mask(m), numbers(m), m * y), "KSpace": (KSpace(lines), numbers(lines), lines * z)}


@pytest.mark.parametrize("name", ["Mask", "KSpace"])
def test_what_fits_scan_and_prior_is_that_of_the_library(page, name):
    A, made_of, y = operator_cases()[name]
    x_t = torch.linspace(-1, 1, SMALL_SIDE**2, dtype=torch.float64).reshape(1, 1, SMALL_SIDE, SMALL_SIDE)
    half = FunctionDenoiser(lambda x, t: x / 2, COSINE)
    ours = torch.cat([inverse.diffpir(half, A, y, noise=0.2, weight=0.3)(x_t, t).flatten() for t in (0.9, 0.3)])
    body = """const [name, madeOf, y, x_t] = given;
    const fitted = d.diffpir(async (x) => x.map((v) => v / 2), new d[name](madeOf), f(y), 0.2, 0.3);
    return [...await fitted(f(x_t), 0.9), ...await fitted(f(x_t), 0.3)];"""
    parts = [y.real, y.imag] if y.is_complex() else [y]
    theirs = call(page, body, name, made_of, numbers(torch.stack(parts)), numbers(x_t))
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)  # single precision in the transform


def test_the_contrast_that_is_left_is_that_of_the_library(page):
    from course_lib.metrics.images import contrast_kept

    generator = torch.Generator().manual_seed(0)
    found, without, change = torch.randn(3, 1, 64, generator=generator, dtype=torch.float64)
    mask = torch.arange(64)[None] < 20
    theirs = call(
        page, "return d.contrastKept(...given.map(f))", *map(numbers, (found, without, change, mask.double()))
    )
    assert theirs == pytest.approx(float(contrast_kept(found, without, change, mask)), abs=1e-12)


# The networks: same seed, same image -------------------------------------------------------------------------------

CLOSE = 1e-3


def asked(page, job, **given):
    """What a job of the worker gives, an image."""
    body = """const { ask } = await import('./client.mjs');
    const [job, values] = given;
    for (const key of ["x", "m", "y", "x_0"]) if (values[key]?.length) values[key] = Float32Array.from(values[key]);
    const found = await ask(job, values);
    return [...(found.x_0 ?? found.y)];"""
    return torch.tensor(call(page, body, job, given))


def stream(seed, k, size):
    """The noise of step k of a walk, 0 for its start, as the page draws it."""
    return torch.tensor(web_lab.normal(seed, k, size * size)).reshape(1, 1, size, size)


def noise_of_steps(monkeypatch, seed, size):
    """Have the library draw the page's noise: that of step k in the k-th random step."""
    steps = iter(range(1, 1000))
    for module in (samplers, inverse):
        monkeypatch.setattr(module, "noise_like", lambda x, generator: stream(seed, next(steps), size))


@pytest.fixture(scope="module")
def patient():
    """A head with a tiny lesion, as the page has it, (1, 1, 96, 96)."""
    image = torch.tensor(web_lab.patients()[web_lab.FAMILIES.index("tiny"), 0])
    return (image / 127.5 - 1).reshape(1, 1, 96, 96)


def prior():
    return pretrained.load_denoiser("brain", precision=torch.float32)


@pytest.mark.parametrize("w", [1, 3])
def test_a_drawn_picture_is_that_of_the_library(page, w):
    network = pretrained.load_denoiser("mednist", clip=False, precision=torch.float32)
    guided = guidance.Clipped(guidance.ClassifierFree(network, none=6, w=w)).given(torch.tensor([4]))
    ours = samplers.sample(guided, stream(3, 0, 64), schedules.log_snr_times(COSINE, 5), samplers.dpmpp_2m_step)
    theirs = asked(page, "draw", seed=3, y=4, w=w, n=5)
    assert ours.std() > 0.2 and float((theirs - ours.flatten()).abs().max()) < CLOSE


def test_one_look_is_that_of_the_library(page):
    network = pretrained.load_denoiser("mednist", precision=torch.float32)
    x_0 = torch.linspace(-1, 1, 4096).reshape(1, 1, 64, 64)
    ours = network(COSINE.noisy(x_0, stream(5, 0, 64), 0.6), 0.6)
    theirs = asked(page, "look", x_0=numbers(x_0), seed=5, t=0.6)
    assert float((theirs - ours.flatten()).abs().max()) < CLOSE


def test_a_fill_is_that_of_the_library(page, patient, monkeypatch):
    noise_of_steps(monkeypatch, 2, 96)
    m = torch.ones_like(patient)
    m[..., 30:50, 40:70] = 0
    fitted = inverse.diffpir(prior(), Mask(m), m * patient, noise=1e-3, weight=1)
    times = schedules.log_snr_times(COSINE, 4, -8, 8)
    ours = samplers.sample(fitted, stream(2, 0, 96), times, STEPS["diffpirStep"])
    theirs = asked(page, "fill", x=numbers(patient), m=numbers(m), seed=2, n=4)
    assert float((theirs - ours.flatten()).abs().max()) < CLOSE


def test_a_healed_head_is_that_of_the_library(page, patient, monkeypatch):
    from course_lib.applications import anomaly

    noise_of_steps(monkeypatch, 4, 96)
    monkeypatch.setattr(anomaly, "noise_like", lambda x, generator: stream(4, 0, 96))
    ours = anomaly.noise_and_denoise(prior(), patient, 0.4, 4, None)
    theirs = asked(page, "heal", x=numbers(patient), t_0=0.4, seed=4, n=4)
    assert float((theirs - ours.flatten()).abs().max()) < CLOSE


def test_a_reconstruction_is_that_of_the_library(page, patient, monkeypatch):
    from course_lib.scans import MRI_NOISE

    noise_of_steps(monkeypatch, 6, 96)
    lines = web_lab.sampled(96, 4)
    A = KSpace(torch.tensor(lines))
    z = torch.tensor(web_lab.normal(0, 1000, 2 * 96 * 96)).reshape(2, 1, 1, 96, 96)
    y = A(patient) + MRI_NOISE * A.lines * torch.complex(*z)
    scanned = asked(page, "scan", x=numbers(patient), lines=lines, sigma_y=MRI_NOISE)
    torch.testing.assert_close(scanned, torch.stack([y.real, y.imag]).flatten(), rtol=0, atol=1e-5)
    fitted = inverse.diffpir(prior(), A, y, MRI_NOISE, weight=0.3)
    times = schedules.log_snr_times(COSINE, 4, -8, 8)
    ours = samplers.sample(fitted, stream(6, 0, 96), times, STEPS["diffpirStep"])
    theirs = asked(page, "reconstruct", y=scanned.tolist(), lines=lines, sigma_y=MRI_NOISE, seed=6, n=4)
    assert float((theirs - ours.flatten()).abs().max()) < CLOSE


# The graphics processor -----------------------------------------------------------------------------------------

SOFTWARE = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]  # WebGPU without a graphics processor
# A runtime that answers as the real one does, but for what `run` makes of the stored answer in the k-th evaluation.
RUNTIME = """
let lose, k = 0;
const answer = async () => new Float32Array(await (await fetch("mednist.answer.bin")).arrayBuffer());
export const env = { wasm: {}, webgpu: { device: { lost: new Promise((resolve) => { lose = resolve; }) } } };
export class Tensor {}
export const InferenceSession = { create: async () => {
    const run = async () => { k += 1; %s };
    return { inputNames: ["x_t", "t", "y"], outputNames: ["v"], run };
} };
"""
RIGHT = "return { v: { data: await answer() } };"
ADAPTER = "{ info: { isFallbackAdapter: false } }"
FAULTS = {  # what the browser offers, what an evaluation does there, what the page says
    "no adapter": ("null", RIGHT, "offers none"),
    "a software adapter": ("{ info: { isFallbackAdapter: true } }", RIGHT, "offers none"),
    "an evaluation that fails": (ADAPTER, "throw new Error('out of memory')", "out of memory"),
    "a wrong answer": (ADAPTER, "return { v: { data: (await answer()).map((v) => v + 0.01) } };", "wrong by 0.010"),
    "no numbers": (ADAPTER, "return { v: { data: (await answer()).fill(NaN) } };", "wrong by"),
    "slow": (ADAPTER, f"await new Promise((end) => setTimeout(end, 1200)); {RIGHT}", "an evaluation took 1."),
    "lost on the way": (ADAPTER, f"if (k > 2) {{ lose({{}}); await new Promise(() => {{}}); }} {RIGHT}", "it was lost"),
}


def networks_with(context, *changes, before=""):
    """Have the page load another networks.mjs: with (old, new) texts, and something before."""
    source = (web_lab.SOURCE / "networks.mjs").read_text(encoding="utf-8")
    for old, new in changes:
        assert source.count(old) == 1
        source = source.replace(old, new)
    javascript = {"body": before + source, "content_type": "text/javascript"}
    context.route("**/networks.mjs", lambda route: route.fulfill(**javascript))


def two_steps():
    """A hand in two evaluations, by PyTorch, (4096,)."""
    hands = pretrained.load_denoiser("mednist", precision=torch.float32).given(torch.tensor([4]))
    return samplers.sample(
        hands, stream(3, 0, 64), schedules.log_snr_times(COSINE, 2), samplers.dpmpp_2m_step
    ).flatten()


@pytest.mark.parametrize("fault", FAULTS)
def test_where_the_graphics_processor_fails_the_processor_computes(chromium, lab, fault):
    adapter, run, says = FAULTS[fault]
    offered = f"Object.defineProperty(navigator, 'gpu', {{ value: {{ requestAdapter: async () => ({adapter}) }} }});"
    with chromium.new_context(service_workers="block") as context:
        networks_with(context, before=f"WebAssembly.Suspending ??= Object; {offered}")
        javascript = {"body": RUNTIME % run, "content_type": "text/javascript"}
        context.route("**/ort.jspi.bundle.min.mjs", lambda route: route.fulfill(**javascript))
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(lab[1])
        page.wait_for_function(STARTED)
        theirs = asked(page, "draw", seed=3, y=4, w=1, n=2)
        assert float((theirs - two_steps()).abs().max()) < CLOSE
        said = page.locator("#processor").inner_text()
        assert says in said and said.startswith("Computes on the processor of this device (WebAssembly)")


def test_without_a_graphics_processor_its_runtime_is_not_loaded(page):
    asked(page, "look", x_0=[0.0] * 4096, seed=0, t=0.5)
    assert [url for url in page.asked if "jspi" in url or "answer" in url] == []
    assert "WebAssembly" in page.locator("#processor").inner_text()


@pytest.mark.skipif(not os.environ.get("CI"), reason="a minute on an idle machine: set CI=true to run it")
def test_webgpu_draws_the_picture_of_the_library(chromium, lab):
    """On an adapter in software, which the page itself would refuse, and find too slow."""
    flags = [flag for flag in lab_server.FLAGS if flag != "--disable-gpu"] + SOFTWARE
    browser = chromium.browser_type.launch(executable_path=lab_server.browser_path(), args=flags)
    with browser, browser.new_context(service_workers="block") as context:
        networks_with(context, ("isFallbackAdapter", "isOfNoInterest"), ("SLOW = 1000", "SLOW = 1e9"))
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(lab[1])
        page.wait_for_function(STARTED)
        if not page.evaluate("async () => !!(await navigator.gpu?.requestAdapter()) && !!WebAssembly.Suspending"):
            pytest.skip("this Chromium has no WebGPU in software, or no JSPI")
        theirs = asked(page, "draw", seed=3, y=4, w=1, n=2)
        assert page.locator("#processor").inner_text() == "Computes on the graphics processor of this device (WebGPU)."
        apart = float((theirs - two_steps()).abs().max())
        print(f"largest difference from PyTorch {apart:.1e}")
        assert apart < CLOSE


# The page ----------------------------------------------------------------------------------------------------------


def test_a_station_is_used_by_keyboard_and_says_what_it_does(page):
    station = page.locator("#draw")
    assert not station.locator(".take").is_visible()
    station.get_by_label("Evaluations").focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#draw [role=status]').textContent.startsWith('Drawn with 3')")
    assert station.locator(".take").is_visible()
    assert page.evaluate("document.activeElement.className") == "go"  # a second Enter draws again
    film = station.get_by_label("The film of it")
    assert film.get_attribute("max") == "3"
    looks = "document.querySelector('#draw canvas').toDataURL()"
    last = page.evaluate(looks)
    film.focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(looks) != last


def test_a_finger_wipes(page):
    canvas = page.locator("#fill canvas").first
    looks = "document.querySelector('#fill canvas').toDataURL()"
    for wipe in (lambda: canvas.tap(position={"x": 60, "y": 90}), lambda: canvas.press(" ")):
        before = page.evaluate(looks)
        wipe()
        assert page.evaluate(looks) != before


def test_every_control_has_a_name_and_every_picture_too(page):
    named = """() => [...document.querySelectorAll('input, select, button, canvas')].map((element) =>
        element.labels?.[0]?.textContent.trim() || element.ariaLabel || element.textContent.trim())"""
    names = page.evaluate(named)
    assert len(names) > 40 and all(names)


def test_on_a_phone_nothing_is_wider_than_the_page(page):
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    controls = "[...document.querySelectorAll('button, input, select')].filter((element) => element.checkVisibility())"
    heights = f"{controls}.map((element) => element.offsetHeight)"
    assert min(page.evaluate(heights)) >= 44  # a finger's breadth


def test_nothing_is_asked_of_another_host_and_nothing_went_wrong(page, lab):
    assert page.asked and [url for url in page.asked if not url.startswith(lab[1])] == []
    assert page.troubles == []


def test_without_webassembly_it_says_so(tab, lab):
    tab.add_init_script("delete globalThis.WebAssembly")
    tab.goto(lab[1])
    tab.locator("#trouble:has-text('lacks WebAssembly')").wait_for()


def fails_and_goes_on(context, tab, lab, file, station, said):
    """A station whose file is missing says so; once it is there, a second try begins anew."""
    context.route(f"**/{file}", lambda route: route.fulfill(status=404))
    tab.goto(lab[1])
    tab.wait_for_function(STARTED)
    for says in (said, "Preparing"):
        tab.locator(f"#{station} .go").click()
        tab.locator(f"#{station} [role=status]:has-text('{says}')").wait_for(timeout=PATIENCE)
        context.unroute(f"**/{file}")


def test_a_file_that_does_not_load_is_named_and_can_be_tried_again(chromium, lab):
    with chromium.new_context(service_workers="block") as context:
        tab = context.new_page()
        fails_and_goes_on(context, tab, lab, "mednist.onnx", "draw", "mednist.onnx did not load (404")
        context.route("**/lab.json", lambda route: route.abort())
        tab.reload()
        tab.locator("#trouble:has-text('lab.json did not load')").wait_for()


def test_a_runtime_that_does_not_load_is_told_and_can_be_tried_again(chromium, lab):
    with chromium.new_context(service_workers="block") as context:
        fails_and_goes_on(context, context.new_page(), lab, "ort.wasm.bundle.min.mjs", "heal", "a file did not load")


def test_a_job_that_was_stopped_says_so(page):
    page.locator("#guide .go").click()
    page.locator("#guide .stop").click()
    page.locator("#guide [role=status]:has-text('Stopped')").wait_for()
    assert not page.locator("#guide .take").is_visible()


def test_what_was_kept_opens_without_a_network(chromium, lab):
    with chromium.new_context() as context:
        tab = context.new_page()
        tab.goto(lab[1])
        tab.wait_for_function(f"{STARTED} && navigator.serviceWorker.controller")
        tab.locator("#keep").click()
        tab.locator("#kept:has-text('without a network')").wait_for(timeout=PATIENCE)
        context.set_offline(True)
        tab.reload()
        tab.wait_for_function(STARTED)
        sizes = "async () => (await (await fetch('brain.onnx')).arrayBuffer()).byteLength"
        assert tab.evaluate(sizes) == (lab[0] / "brain.onnx").stat().st_size
