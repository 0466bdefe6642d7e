"""Programs and functions inside pods: a web server in one, a client in the other."""

import subprocess
import sys
import urllib.request

from fastbridge import Lab, Switch


def fetch(url: str) -> int:
    """The status of the answer."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - of the lab
        status: int = answer.status
        return status


with Lab(pods=2) as lab, Switch(lab.ports):
    serve = [sys.executable, "-m", "http.server", "8000", "--directory", "/sys"]
    server = lab["pod2"].popen(serve, stderr=subprocess.DEVNULL)  # it would log each request
    lab["pod2"].wait_listening(8000)
    print("status", lab["pod1"].call(fetch, "http://10.0.0.2:8000/"))
    server.terminate()
