"""Any program, inside a pod: a web server in one, a client in the other."""

import subprocess
import sys
import time

from fastbridge import Lab, Switch

FETCH = "import urllib.request as u; print(u.urlopen('http://10.0.0.2:8000/', timeout=5).status)"

with Lab(pods=2) as lab, Switch(lab.ports):
    serve = [sys.executable, "-m", "http.server", "8000", "--directory", "/sys"]
    server = lab["pod2"].popen(serve, stderr=subprocess.DEVNULL)  # it would log each request
    for _ in range(50):
        fetched = lab["pod1"].run([sys.executable, "-c", FETCH], check=False)
        if fetched.returncode == 0:
            break
        time.sleep(0.1)  # the server has not opened its port yet
    print("status", fetched.stdout.strip())
    server.terminate()
