"""Serve a folder of pages to the phones of a room, at an address of this machine that is named, with a QR code.

    python serve.py 192.168.1.20            the folder `pack` beside this file, at port 8000
    python serve.py 192.168.1.20 --port 80

Standard library and segno only, so that this file works from a stick, with the folder of segno beside it. Files that
end in .gz are sent compressed, under their name without it.
"""

import argparse
import contextlib
import errno
import functools
import html
import http.server
import io
import ipaddress
import os
import socket
import sys
from pathlib import Path

import segno

PORT = 8000
QR_PAGE = "/qr.html"
TYPES = {  # by name, since Windows may have its own opinion of .js
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".avif": "image/avif",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    "": "application/octet-stream",
}
TAKEN = {errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", None)}
NOT_HERE = {errno.EADDRNOTAVAIL, getattr(errno, "WSAEADDRNOTAVAIL", None)}
REFUSED = {errno.EACCES, getattr(errno, "WSAEACCES", None)}

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>
body {{ margin: 0; background: white; color: black; font: 2rem/1.4 sans-serif; text-align: center; }}
main {{ min-height: 100vh; display: flex; flex-direction: column; justify-content: center; align-items: center; }}
svg {{ width: min(75vmin, 95vw); height: auto; }}
h1, p {{ margin: 0.3rem; font-size: inherit; overflow-wrap: anywhere; }}
</style></head><body><main>
<h1>{title}</h1>
{svg}
<p><a href="{address}">{address}</a></p>
</main></body></html>
"""
MISSING = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Not here</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
</head><body style="font: 1.2rem/1.5 sans-serif; margin: 1rem"><main><h1>Not here</h1>
<p>This page belongs to the whole course, of which only a part came along.</p>
<p><a href="/">Back to the part that did.</a></p>
</main></body></html>
"""


class ServeError(Exception):
    """Something the instructor can mend; the message says what and how, in one sentence."""


# QR codes ----------------------------------------------------------------------------------------------------------


def qr_page(address, title):
    """A page for the wall: the QR code of an address as SVG, and the address in letters."""
    svg = segno.make(address, error="m", micro=False).svg_inline(scale=8, border=4, omitsize=True)
    svg = svg.replace("<svg ", '<svg role="img" aria-label="QR code of the address below" ', 1)
    return PAGE.format(title=html.escape(title), svg=svg, address=html.escape(address))


def qr_lines(address):
    """The QR code of an address as lines for a terminal: two rows a line, in half blocks, black on white."""
    rows = [list(row) for row in segno.make(address, error="m", micro=False).matrix_iter(border=2)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    blocks = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}
    lines = ("".join(blocks[bool(a), bool(b)] for a, b in zip(*pair)) for pair in zip(rows[::2], rows[1::2]))
    return [f"\033[30;107m{line}\033[0m" for line in lines]


# The address -------------------------------------------------------------------------------------------------------


def own_addresses():
    """The IPv4 addresses by which this machine is known, as far as it tells."""
    found = {"127.0.0.1"}
    with contextlib.suppress(OSError):
        found.update(info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET))
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address for documentation: this sends nothing, it chooses a way out
        found.add(probe.getsockname()[0])
    return sorted(found)


def checked(address):
    """The address, if it is one. Raises ServeError: it is not, or it stands for every network of this machine."""
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        raise ServeError(
            f"{address} is no IPv4 address: name one of this machine ({', '.join(own_addresses())})."
        ) from None
    if parsed.is_unspecified:
        raise ServeError(
            f"{address} would open every network of this machine: name one address ({', '.join(own_addresses())})."
        )
    return str(parsed)


# The server --------------------------------------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of one folder, compressed where they lie so, no listings, and the page with the QR code."""

    extensions_map = TYPES
    protocol_version = "HTTP/1.1"  # one connection for many files: a weak Wi-Fi is slow to make new ones
    timeout = 60
    error_message_format = MISSING.replace("%", "%%")
    error_content_type = "text/html;charset=utf-8"

    def send_head(self):
        if self.path == QR_PAGE:
            return self.send_file(self.server.qr_page(), "text/html")
        path = self.translate_path(self.path)
        path = os.path.join(path, "index.html") if os.path.isdir(path) and self.path.endswith("/") else path
        if os.path.isfile(path + ".gz"):
            with open(path + ".gz", "rb") as file:
                return self.send_file(file.read(), self.guess_type(path), "gzip")
        return super().send_head()

    def send_file(self, content, kind, encoding=None):
        self.send_response(200)
        self.send_header("Content-Type", kind + ("; charset=utf-8" if kind.startswith("text/") else ""))
        self.send_header("Content-Length", str(len(content)))
        if encoding:
            self.send_header("Content-Encoding", encoding)
        if kind != "text/html":
            self.send_header("Cache-Control", "max-age=3600")  # styles and scripts travel once
        self.end_headers()
        return io.BytesIO(content)

    def end_headers(self):
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def list_directory(self, path):
        self.send_error(404)

    def log_message(self, *args):
        pass  # two hundred phones would hide the address in the terminal


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder at one address and port. Raises ServeError where that cannot be."""

    request_queue_size = 128
    allow_reuse_address = os.name != "nt"  # there it would share a port that is taken

    def __init__(self, folder, address, port=PORT):
        handler = functools.partial(Handler, directory=str(folder))
        try:
            super().__init__((checked(address), port), handler)
        except (OSError, OverflowError) as error:
            raise ServeError(explained(error, address, port)) from None
        self.url = f"http://{self.server_address[0]}:{self.server_port}/"

    def qr_page(self):
        return qr_page(self.url, "Diffusion models for medical imaging").encode()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # a phone that left is no error
            super().handle_error(request, client_address)


def explained(error, address, port):
    """One sentence for why a server did not start."""
    code = getattr(error, "errno", None)
    if isinstance(error, OverflowError):
        return f"{port} is no port: take one from 1024 to 65535."
    if code in NOT_HERE:
        return f"{address} is no address of this machine: it has {', '.join(own_addresses())}."
    if code in TAKEN:
        return f"Port {port} of {address} is taken: stop what uses it, or name another, such as --port {port + 1}."
    if code in REFUSED:
        return f"Port {port} is not yours to open: name one above 1023, such as --port {PORT}."
    return f"The server did not start: {error}."


def announcement(url, address, encoding):
    """What the terminal shows: the address, its QR code where the terminal has the signs, and who can see the pages."""
    lines = [f"Serving {url}", f"For the wall: {url}{QR_PAGE[1:]}"]
    with contextlib.suppress(UnicodeEncodeError):
        "▀▄█".encode(encoding)
        lines = qr_lines(url) + lines
    if ipaddress.IPv4Address(address).is_loopback:
        lines.append("Only this machine sees it. For phones, name an address of this machine in their network:")
        lines.append("  " + (", ".join(a for a in own_addresses() if not a.startswith("127.")) or "none was found"))
    else:
        lines.append("Everybody in that network can read these pages, and nothing else of this machine.")
    return "\n".join([*lines, "Ctrl-C ends it."])


def add_arguments(parser):
    """The arguments that say where to serve."""
    parser.add_argument("address", nargs="?", default="127.0.0.1", help="an IPv4 address of this machine")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")


def serve(folder, address, port=PORT):
    """Serve a folder until Ctrl-C. Raises ServeError."""
    with Server(folder, address, port) as server:
        print(announcement(server.url, address, sys.stdout.encoding or "ascii"), flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def main(arguments, folder):
    """Entry point for a folder that lies there already; returns the exit status."""
    parser = argparse.ArgumentParser(description="Serve the phone pack to a room.")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        if not folder.is_dir():
            raise ServeError(f"{folder} is not there: python3 start.py phone --stick FOLDER writes it.")
        serve(folder, options.address, options.port)
    except ServeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent / "pack"))
