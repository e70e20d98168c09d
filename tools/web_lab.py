"""Write the lab in the page: the networks as ONNX, a few pictures and what the browser needs to compute with them.

python tools/web_lab.py FOLDER               write it, as `python3 start.py site` does into build/site/lab
python tools/web_lab.py --runtime TARBALL    pack the runtime anew from npm's onnxruntime-web-VERSION.tgz, after RUNTIME
                                             below was changed to its version and checksum

FOLDER is complete: any server of files will do, and it asks nothing of another host. docs/lab.md says how it works.
"""

import argparse
import base64
import copy
import gzip
import hashlib
import io
import json
import lzma
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SOURCE = ROOT / "docs" / "site" / "lab"
CACHE = ROOT / "build" / "lab-cache"
SHELL = (
    "index.html",
    "lab.css",
    "lab.mjs",
    "client.mjs",
    "files.mjs",
    "worker.mjs",
    "networks.mjs",
    "diffusion.mjs",
)
RUNTIME = {
    "version": "1.30.0",
    "integrity": "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    "files": {
        "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
        "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
        "ort.jspi.bundle.min.mjs": "07ec090355e11b342c95436db54da2d0c2bd5b1d319745bfd3337e6bdcf170ac",
        "ort-wasm-simd-threaded.jspi.wasm": "a54c76f86b0f0d9572380cf1c6292a7b3903716ffcbcd6b0e5c7050bf430eb93",
    },
}
PACKED = {  # for the processor, for the graphics processor
    SOURCE / "runtime.tar.xz": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    SOURCE / "runtime-webgpu.tar.xz": ("ort.jspi.bundle.min.mjs", "ort-wasm-simd-threaded.jspi.wasm"),
}
NETWORKS = ("mednist", "brain")
FAMILIES = ("hyper", "hypo", "mass", "tiny")
ACCELERATIONS = (2, 4, 8)
LARGE = 4096  # numbers from which on an array is stored small


# Noise that the page can draw too ----------------------------------------------------------------------------------


def philox(counter, key):
    """Philox4x32-10 (Salmon et al., SC 2011): random words, uint32 (N, 4), of counters (N, 4) and a key (2,)."""
    c, k = np.asarray(counter, np.uint64), [np.uint64(word) for word in key]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        first, second = c[:, 0] * np.uint64(0xD2511F53), c[:, 2] * np.uint64(0xCD9E8D57)
        shift = np.uint64(32)
        c = np.stack(
            [(second >> shift) ^ c[:, 1] ^ k[0], second & low, (first >> shift) ^ c[:, 3] ^ k[1], first & low], 1
        )
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return c.astype(np.uint32)


def normal(seed, stream, n):
    """n numbers of standard normal noise, float32 (n,), the same for the same seed and stream, whole numbers from 0 on:
    Philox, then Box and Muller. diffusion.mjs has the same."""
    counter = np.zeros((-(-n // 4), 4), np.uint64)
    counter[:, 0] = np.arange(len(counter))
    u = (philox(counter, (seed, stream)) + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(u[:, ::2])), 2 * np.pi * u[:, 1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 2).reshape(-1)[:n].astype(np.float32)


# Networks ----------------------------------------------------------------------------------------------------------


def on_cpu(name):
    """A copy of a shipped network on the CPU: the loaded one is everybody's, and stays where it is."""
    from course_lib import pretrained

    return copy.deepcopy(pretrained.load(name)).cpu()


def onnx_of(name):
    """A shipped network as an ONNX file, bytes: (x_t, t), or (x_t, t, y), for one image -> v; weights as small as they
    are stored in course_lib/weights, and equal to those that PyTorch computes with."""
    import torch

    from course_lib import pretrained

    card, net = pretrained.card(name), on_cpu(name)
    x_t = torch.zeros(1, 1, card["image_size"], card["image_size"])
    given = (x_t, torch.tensor([0.5]), *([torch.tensor([0])] if net.num_classes else []))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.onnx.export(net, given, dynamo=True, opset_version=18, verbose=False).model_proto
    shrink(model, int8_weights(name))
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]  # where in PyTorch's and this machine's source each node comes from
    del model.graph.value_info[:]
    return model.SerializeToString()


def int8_weights(name):
    """{float32 array as bytes: (whole numbers int8, scales)} of a network's weights that are stored in eight bits, as
    they are and transposed, as an export may have them; the scales broadcast against the numbers."""
    from course_lib import pretrained
    from course_lib.eight_bits import SCALE, unpacked
    from course_lib.files import read_tensors

    stored = read_tensors(pretrained.WEIGHTS / f"{name}.safetensors")[0]
    found, full = {}, unpacked(stored)
    for key in full:
        if key + SCALE in stored:
            whole = stored[key].numpy()
            scale = stored[key + SCALE].numpy().reshape(-1, *[1] * (whole.ndim - 1))
            found[full[key].numpy().tobytes()] = whole, scale
            if whole.ndim == 2:
                found[full[key].numpy().T.tobytes()] = whole.T, scale.T
    return found


def shrink(model, in_eight_bits):
    """Store the large arrays of an ONNX model in fewer bits, in place, with nodes that turn them back: int8 and scales,
    or float16 where that holds every digit; the others stay."""
    from onnx import TensorProto, helper, numpy_helper

    arrays, nodes = [], []
    for array in list(model.graph.initializer):
        value, name = numpy_helper.to_array(array), array.name
        eight = in_eight_bits.get(value.tobytes())
        if value.dtype != np.float32 or value.size < LARGE:
            continue
        if eight is not None:
            small, scale = eight
            arrays.append(numpy_helper.from_array(np.ascontiguousarray(scale), name + ".scale"))
            nodes.append(helper.make_node("Cast", [name + ".small"], [name + ".whole"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [name + ".whole", name + ".scale"], [name]))
        elif (value.astype(np.float16).astype(np.float32) == value).all():
            small = value.astype(np.float16)
            nodes.append(helper.make_node("Cast", [name + ".small"], [name], to=TensorProto.FLOAT))
        else:
            continue
        model.graph.initializer.remove(array)
        arrays.append(numpy_helper.from_array(np.ascontiguousarray(small), name + ".small"))
    model.graph.initializer.extend(arrays)
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def answer(name):
    """What a network says of normal(0, 0, n) at t = 0.5, without a class, by PyTorch: v, float32 (n,). The page asks a
    graphics processor the same before it trusts it."""
    import torch

    from course_lib import pretrained

    net, size = on_cpu(name).float(), pretrained.card(name)["image_size"]
    x_t = torch.tensor(normal(0, 0, size * size)).reshape(1, 1, size, size)
    none = [torch.tensor([net.num_classes])] if net.num_classes else []
    with torch.no_grad():
        return net(x_t, torch.tensor([0.5]), *none).flatten().numpy()


# Pictures ----------------------------------------------------------------------------------------------------------


def drawn():
    """One picture of each class, drawn by the network of MedNIST: uint8 (6, 64, 64)."""
    import torch

    from course_lib import pretrained
    from course_lib.images import to_uint8
    from course_lib.samplers import dpmpp_2m_step, sample
    from course_lib.schedules import log_snr_times

    denoiser = pretrained.load_denoiser("mednist", precision=torch.float32)
    y = torch.arange(6)
    noise = torch.tensor(np.stack([normal(7, int(k), 64 * 64) for k in y])).reshape(6, 1, 64, 64)
    return to_uint8(sample(denoiser.given(y), noise, log_snr_times(denoiser.schedule, 15), dpmpp_2m_step)[:, 0])


def patients():
    """A made subject for each family of lesions, uint8 (4, 3, 96, 96): the image, the healthy twin, and the lesion
    (0 and 1). Of the test split, which no network was trained on."""
    from course_lib.datasets import BRAIN_SIZE, synthetic_brains
    from course_lib.images import to_uint8

    found = []
    for family in FAMILIES:
        cases = synthetic_brains("test", 4, BRAIN_SIZE, lesion=family, seed=19)
        k = int(cases.masks.sum((1, 2)).argmax())  # whose lesion shows best
        found.append(np.stack([*to_uint8(np.stack([cases.images[k], cases.healthy[k]])), cases.masks[k]]))
    return np.stack(found)


def sampled(size, acceleration):
    """Measured lines of k-space (size,), a list of 0 and 1, always the same."""
    import torch

    from course_lib.operators import sampled_lines

    return sampled_lines(size, acceleration, torch.Generator().manual_seed(acceleration)).int().tolist()


# The folder --------------------------------------------------------------------------------------------------------


def fingerprint():
    """What the slow parts are made of, in one line: this file, the modules that draw, the networks, the libraries that
    export them."""
    from importlib import metadata

    from course_lib import generate, pretrained, samplers, schedules
    from data_fetch import brain_cohort

    files = (__file__, *(module.__file__ for module in (brain_cohort, generate, samplers, schedules)))
    made_of = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]
    made_of += map(metadata.version, ("torch", "onnx"))
    made_of += [pretrained.card(name)["sha256"] for name in NETWORKS]
    return hashlib.sha256(" ".join(made_of).encode()).hexdigest()[:12]


def kept(name, make):
    """The bytes that make() gives, kept in build/lab-cache until what they are made of changes."""
    from course_lib.files import write_atomically

    path = CACHE / f"{fingerprint()}-{name}"
    if not path.exists():
        write_atomically(path, make())
    return path.read_bytes()


def runtime_files():
    """{name: bytes} of the runtime as it is served, its WebAssembly by gzip, and its licence. Raises ValueError where a
    file is not the one of RUNTIME."""
    found = {"LICENSE.txt": (SOURCE / "LICENSE-onnxruntime.txt").read_bytes()}
    for packed, names in PACKED.items():
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(packed.read_bytes()))) as archive:
            module, wasm = (archive.extractfile(name).read() for name in names)
        for name, content in zip(names, (module, wasm), strict=True):
            if hashlib.sha256(content).hexdigest() != RUNTIME["files"][name]:
                raise ValueError(f"{packed} holds another {name} than RUNTIME: get it back with git checkout")
        found |= {names[0]: module, names[1] + ".gz": gzip.compress(wasm, 9, mtime=0)}
    return found


def about_networks():
    """What the page is told of each network."""
    from course_lib import pretrained

    found = {}
    for name in NETWORKS:
        card = pretrained.card(name)
        found[name] = {"file": f"{name}.onnx", "answer": f"{name}.answer.bin"}
        found[name] |= {"size": card["image_size"], "none": len(card["classes"])}
    return found


def contents():
    """{path: bytes} of the whole lab."""
    from course_lib.datasets import BRAIN_SIZE
    from course_lib.scans import MRI_NOISE

    files = {name: (SOURCE / name).read_bytes() for name in SHELL}
    files |= {f"runtime/{name}": content for name, content in runtime_files().items()}
    files |= {f"{name}.onnx": kept(f"{name}.onnx", lambda name=name: onnx_of(name)) for name in NETWORKS}
    files |= {f"{name}.answer.bin": answer(name).tobytes() for name in NETWORKS}
    files["drawn.bin"] = kept("drawn.bin", lambda: drawn().tobytes())
    files["patients.bin"] = kept("patients.bin", lambda: patients().tobytes())
    about = {
        "networks": about_networks(),
        "lines": {R: sampled(BRAIN_SIZE, R) for R in ACCELERATIONS},
        "sigma_y": MRI_NOISE,
        "files": {name: len(content) for name, content in files.items()},
    }
    files["lab.json"] = json.dumps(about).encode()
    version = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()[:12]
    shell = json.dumps(["./", *SHELL, "lab.json", "drawn.bin", "patients.bin", "runtime/ort.wasm.bundle.min.mjs"])
    worker = (SOURCE / "sw.js").read_text(encoding="utf-8")
    files["sw.js"] = worker.replace("VERSION", version, 1).replace('["FILES"]', shell, 1).encode()
    return files


def write(folder):
    """Write the lab into a folder, which is made; what else lies there stays."""
    from course_lib.files import write_atomically

    for name, content in contents().items():
        write_atomically(Path(folder, name), content)


def pack_runtime(tarball):
    """Pack the files of RUNTIME from npm's tarball. Raises ValueError where that is another one."""
    from course_lib.files import write_atomically

    content = Path(tarball).read_bytes()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if integrity != RUNTIME["integrity"]:
        raise ValueError(f"{tarball} is not version {RUNTIME['version']}: its integrity is {integrity}")
    with tarfile.open(fileobj=io.BytesIO(content)) as source:
        for path, names in PACKED.items():
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as target:
                for name in names:
                    inside = source.extractfile(f"package/dist/{name}").read()
                    entry = tarfile.TarInfo(name)
                    entry.size = len(inside)
                    target.addfile(entry, io.BytesIO(inside))
            write_atomically(path, lzma.compress(packed.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def main(arguments):
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the lab is written")
    parser.add_argument("--runtime", metavar="TARBALL", help="pack the runtime from npm's tarball")
    options = parser.parse_args(arguments)
    if options.runtime:
        pack_runtime(options.runtime)
    elif options.folder:
        write(options.folder)
    else:
        parser.error("name the folder that the lab is written into")


if __name__ == "__main__":
    main(sys.argv[1:])
