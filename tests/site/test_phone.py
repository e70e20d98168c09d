"""The phone pack: what is in it, how it is served, its errors, its QR codes, its pages in a browser like a phone's."""

import ast
import gzip
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import lab_server
import phone
import pytest
import serve

import start

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = "203.0.113.7"  # an address for documentation, of no machine


@pytest.fixture(scope="module")
def pack(site, tmp_path_factory):
    """The pack of the built site: its folder and its size in bytes."""
    folder = tmp_path_factory.mktemp("phone") / "pack"
    return folder, phone.pack(site.folder, folder)


@pytest.fixture(scope="module")
def server(pack):
    """The pack, served on this machine."""
    with serve.Server(pack[0], "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def fetch(url):
    """Status, headers and body of an address; errors are answers, too."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def one_sentence(text):
    """True for a message that an instructor can take in."""
    return "\n" not in text and text.endswith(".") and len(text) < 260


# What is in it


def test_it_has_what_an_hour_needs_in_at_most_40_megabytes(pack, site):
    folder, size = pack
    print(f"{size / 1e6:.1f} MB")
    assert size <= 40e6
    assert size == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.html.gz")}
    wanted = {"docs/clinicians", "docs/quiz", "notebooks/00_start_here"}
    wanted |= {f"notebooks/{name}" for name in ("09_reconstruction", "11_anomaly_detection", "14_open_challenges")}
    assert {f"{name}.html.gz" for name in wanted} <= there
    lab = {path.relative_to(site.folder).as_posix() for path in site.folder.glob("lab/**/*") if path.is_file()}
    assert {name for name in lab if not any((folder / f"{name}{end}").is_file() for end in ("", ".gz"))} == set()


def test_it_is_made_anew_but_never_over_what_others_made(site, tmp_path):
    folder = tmp_path / "pack"
    phone.pack(site.folder, folder)
    (folder / "old.html").touch()
    phone.pack(site.folder, folder)
    assert not (folder / "old.html").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(serve.ServeError, match="holds something else"):
        phone.pack(site.folder, mine)
    assert (mine / "thesis.txt").read_text() == "mine"


def test_a_site_that_was_not_built_is_an_error_in_a_sentence(tmp_path, capsys):
    assert phone.main([], tmp_path / "site", tmp_path / "pack") == 1
    said = capsys.readouterr().err.strip()
    assert "python3 start.py site" in said and one_sentence(said)


# The address


def test_nothing_is_open_to_a_network_that_was_not_named(pack, monkeypatch):
    served = []
    monkeypatch.setattr(serve, "serve", lambda *where: served.append(where))
    monkeypatch.setattr(phone, "pack", lambda *_: 0)
    assert phone.main([]) == phone.main(["192.168.1.20", "--port", "8001"]) == 0
    assert [where[1:] for where in served] == [("127.0.0.1", 8000), ("192.168.1.20", 8001)]
    with serve.Server(pack[0], "127.0.0.1", 0) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"


def test_start_passes_address_and_port_on():
    options, extra = start.parse(["phone", "192.168.1.20", "--port", "8001"])
    assert (options.command, extra) == ("phone", ["192.168.1.20", "--port", "8001"])
    command = start.phone_command("python", extra)
    assert command == ["python", str(ROOT / "tools" / "phone.py"), *extra]


@pytest.mark.parametrize(
    ("address", "port", "words"),
    [
        ("0.0.0.0", 0, "would open every network"),
        ("lectern", 0, "no IPv4 address"),
        ("::1", 0, "no IPv4 address"),
        (ELSEWHERE, 0, "no address of this machine"),
        ("127.0.0.1", 99999, "no port"),
    ],
)
def test_an_address_or_port_that_cannot_be_is_an_error_in_a_sentence(tmp_path, address, port, words):
    with pytest.raises(serve.ServeError, match=words) as caught:
        serve.Server(tmp_path, address, port)
    assert one_sentence(str(caught.value))
    assert "127.0.0.1" in str(caught.value) or port, "it names what this machine has"


def test_a_port_that_is_taken_is_an_error_that_names_another(server, tmp_path):
    with pytest.raises(serve.ServeError, match=f"--port {server.server_port + 1}") as caught:
        serve.Server(tmp_path, "127.0.0.1", server.server_port)
    assert one_sentence(str(caught.value))


def test_what_is_said_of_who_can_see_it():
    alone = serve.announcement("http://127.0.0.1:8000/", "127.0.0.1", "utf-8")
    room = serve.announcement("http://192.168.1.20:8000/", "192.168.1.20", "utf-8")
    assert "Only this machine" in alone and "Everybody in that network" in room
    assert "http://192.168.1.20:8000/qr.html" in room and "▀" in room
    assert "▀" not in serve.announcement("http://127.0.0.1:8000/", "127.0.0.1", "cp1252"), (
        "a terminal without the signs"
    )


# The server


def test_text_travels_compressed_and_under_its_own_type(server):
    status, headers, body = fetch(server.url + "docs/clinicians.html")
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert headers["Content-Type"].startswith("text/html") and b"A clinician" in gzip.decompress(body)
    (script,) = re.findall(rb'src="(\.\./_static/code\.js[^"]*)"', gzip.decompress(body))
    _, headers, _ = fetch(server.url + "docs/" + script.decode())
    assert headers["Content-Type"].startswith("text/javascript")
    assert serve.TYPES[".wasm"] == "application/wasm"  # else a browser compiles it only once it is all there


@pytest.mark.parametrize(
    "path", ["_static/", "_images", "../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "gone.html"]
)
def test_no_listing_and_nothing_outside_the_pack(server, path):
    status, _, body = fetch(server.url + path)
    assert status == 404 and b"Back to the part that did" in body


def test_a_page_that_stayed_behind_says_so_and_leads_back(server, tab):
    tab.goto(server.url + "notebooks/03_ddpm.html")
    assert "belongs to the whole course" in tab.locator("main").text_content()
    tab.get_by_role("link").click()
    assert tab.locator("main a").count() >= 3


# The stick


def test_the_stick_serves_itself_without_any_package(site, tmp_path):
    phone.write_stick(site.folder, tmp_path)
    ast.parse((tmp_path / "serve.py").read_text(encoding="utf-8"), feature_version=(3, 7))
    assert "Redistribution and use" in (tmp_path / "segno" / "LICENSE").read_text(encoding="utf-8")
    port = lab_server.free_port()
    command = [sys.executable, "-S", "-E", "serve.py", "127.0.0.1", "--port", str(port)]  # -S: no installed packages
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, encoding="utf-8", env={"PYTHONUTF8": "1"})
    try:
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith(f"Serving http://127.0.0.1:{port}/") for line in lines)
        assert fetch(f"http://127.0.0.1:{port}/docs/clinicians.html")[0] == 200
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


# QR codes, read by the rules of ISO/IEC 18004: format, mask, zigzag, blocks, bytes

#: Data bytes of each block, by version and level.
BLOCKS = {
    **{(1, "L"): [19], (1, "M"): [16], (1, "Q"): [13], (1, "H"): [9]},
    **{(2, "L"): [34], (2, "M"): [28], (2, "Q"): [22], (2, "H"): [16]},
    **{(3, "L"): [55], (3, "M"): [44], (3, "Q"): [17] * 2, (3, "H"): [13] * 2},
    **{(4, "L"): [80], (4, "M"): [32] * 2, (4, "Q"): [24] * 2, (4, "H"): [9] * 4},
}
MASKS = [
    lambda r, c: (r + c) % 2 == 0,
    lambda r, c: r % 2 == 0,
    lambda r, c: c % 3 == 0,
    lambda r, c: (r + c) % 3 == 0,
    lambda r, c: (r // 2 + c // 3) % 2 == 0,
    lambda r, c: r * c % 2 + r * c % 3 == 0,
    lambda r, c: (r * c % 2 + r * c % 3) % 2 == 0,
    lambda r, c: ((r + c) % 2 + r * c % 3) % 2 == 0,
]


def read_qr(modules):
    """The text in the modules (rows of 0 and 1, without a border) of a QR code of version 1 to 4 in byte mode."""
    n = len(modules)
    version = (n - 17) // 4
    known = "".join(str(modules[8][c]) for c in range(5))  # level and mask, under a mask of their own
    bits = int(known, 2) ^ 0b10101
    level, mask = "MLHQ"[bits >> 3], MASKS[bits & 7]

    def is_data(r, c):
        finder = (r < 9 and (c < 9 or c >= n - 8)) or (r >= n - 8 and c < 9)
        alignment = version > 1 and abs(r - (n - 7)) <= 2 and abs(c - (n - 7)) <= 2
        return not (finder or alignment or r == 6 or c == 6)

    stream, up = [], True
    for right in [c for c in range(n - 1, 0, -2) if c > 6] + [5, 3, 1]:
        for r in range(n - 1, -1, -1) if up else range(n):
            stream += [modules[r][c] ^ mask(r, c) for c in (right, right - 1) if is_data(r, c)]
        up = not up
    words = [int("".join(map(str, map(int, stream[i : i + 8]))), 2) for i in range(0, len(stream) - 7, 8)]
    sizes = BLOCKS[version, level]
    words = words[: sum(sizes)]
    data = "".join(f"{word:08b}" for k in range(len(sizes)) for word in words[k :: len(sizes)])
    assert data[:4] == "0100", "byte mode"
    length = int(data[4:12], 2)
    return bytes(int(data[12 + 8 * i : 20 + 8 * i], 2) for i in range(length)).decode()


def modules_of_svg(page, tab):
    """The modules of the QR code on a page, as the browser draws them."""
    tab.set_content(page)
    size = tab.locator("svg").evaluate("svg => svg.viewBox.baseVal.width")
    pixels = tab.locator("svg").evaluate(
        """async svg => {
            const image = new Image(), canvas = document.createElement('canvas');
            const side = canvas.width = canvas.height = svg.viewBox.baseVal.width;
            svg.setAttribute('width', side); svg.setAttribute('height', side);
            image.src = 'data:image/svg+xml;base64,' + btoa(new XMLSerializer().serializeToString(svg));
            await image.decode();
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            return [...context.getImageData(0, 0, side, side).data].filter((value, place) => place % 4 === 3);
        }"""
    )
    rows = [[int(pixels[int(r * size + c)] > 127) for c in range(4, int(size), 8)] for r in range(4, int(size), 8)]
    return [row[4:-4] for row in rows[4:-4]]


def modules_of_terminal(lines):
    """The modules of a QR code in half blocks."""
    texts = [re.sub(r"\033\[[\d;]*m", "", line) for line in lines]
    rows = [[int(sign in half) for sign in text] for text in texts for half in ("▀█", "▄█")]
    size = len(rows[0])
    return [row[2:-2] for row in rows[2 : size - 2]]


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8000/", "http://192.168.178.120:8000/", "https://diffusion-medical-imaging.github.io/course/"],
)
def test_both_qr_codes_hold_the_address(address, tab):
    assert read_qr(modules_of_terminal(serve.qr_lines(address))) == address
    assert read_qr(modules_of_svg(serve.qr_page(address, "Course"), tab)) == address


def test_the_server_shows_its_own_address_for_the_wall(server, tab):
    _, _, page = fetch(server.url + "qr.html")
    assert read_qr(modules_of_svg(page.decode(), tab)) == server.url
    assert tab.get_by_role("img").get_attribute("aria-label")


def test_the_site_has_a_page_for_the_wall_with_the_address_of_pyproject(site, tab):
    (address,) = re.findall(r'^Documentation = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    page = (site.folder / "qr.html").read_text(encoding="utf-8")
    assert read_qr(modules_of_svg(page, tab)) == address and f'href="{address}"' in page


# On a phone


@pytest.fixture
def hand_held(chromium):
    """A page of 390 x 844 with touch, as a phone has it."""
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


def test_every_page_of_the_pack_loads_whole_and_fits(server, hand_held):
    troubles = []
    hand_held.on("response", lambda a: troubles.append(f"{a.status} {a.url}") if a.status >= 400 else None)
    hand_held.on("pageerror", lambda error: troubles.append(str(error)))
    hand_held.on("request", lambda r: troubles.append(r.url) if not r.url.startswith((server.url, "data:")) else None)
    hand_held.goto(server.url)
    pages = ["", *hand_held.locator("main a").evaluate_all("links => links.map(link => link.getAttribute('href'))")]
    assert "docs/clinicians.html" in pages
    for page in pages:
        hand_held.goto(server.url + page, wait_until="load")
        hand_held.evaluate(
            """async () => {
                if (window.MathJax) await MathJax.startup.promise;
                for (const image of document.images) { image.loading = 'eager'; await image.decode(); }
            }"""
        )
        assert hand_held.evaluate("document.documentElement.scrollWidth") <= 390, page
    assert troubles == []


def test_sliders_and_cards_answer_a_finger(server, hand_held):
    hand_held.goto(server.url + "docs/clinicians.html")
    slider = hand_held.locator("input.course-stepper").first
    frame = hand_held.locator(".course-widget:has(input.course-stepper) img.course-frame").first
    last = frame.get_attribute("src")
    box = slider.bounding_box()
    slider.tap(position={"x": 5, "y": box["height"] / 2})
    assert frame.get_attribute("src") != last
    card = hand_held.locator(".course-predict").first
    card.locator("label").nth(1).tap()
    card.locator(".course-commit").tap()
    assert card.locator(".course-verdict").text_content() == "✓ As you predicted."
    answer = hand_held.locator("details", has_text="The first hand has four digits").first
    assert not answer.locator("p").first.is_visible()
    answer.locator("summary").tap()
    assert answer.locator("p").first.is_visible()
