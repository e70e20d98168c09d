"""A folder on a port of this machine, for a browser."""

import contextlib
import functools
import http.server
import threading


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not print its requests between the tests' dots."""

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(folder):
    """The address, on 127.0.0.1, at which the files of a folder are served in the meantime."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
