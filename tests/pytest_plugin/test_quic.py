"""aioquic over a bad link: what a project that tests a protocol does with a lab."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from projects import outcomes, run_tests

pytestmark = [pytest.mark.live, pytest.mark.slow]

SERVER = """
import asyncio, sys
from aioquic.asyncio import serve
from aioquic.quic.configuration import QuicConfiguration

async def answer(reader, writer):
    writer.write(bytes(int(await reader.read())))
    writer.write_eof()

async def main():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["size"])
    configuration.load_cert_chain("server.pem", "server.pem")
    tasks = []
    start = lambda reader, writer: tasks.append(asyncio.ensure_future(answer(reader, writer)))
    await serve("0.0.0.0", 4433, configuration=configuration, stream_handler=start)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

CLIENT = """
import asyncio, ssl, sys
from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration

async def main(size):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["size"], verify_mode=ssl.CERT_NONE)
    async with connect("10.0.0.2", 4433, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        writer.write(size.encode())
        writer.write_eof()
        print(len(await reader.read()))

asyncio.run(main(sys.argv[1]))
"""

TESTS = """
    import json, socket, subprocess, sys, threading
    from pathlib import Path
    import pytest
    from fastbridge import Topology

    OUTGOING, ALL = 4, 3

    class Sent:
        # What a pod sends, in order. Of UDP the payload: the kernel has yet to fill in the checksum.
        def __init__(self, pod):
            self.socket = pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.settimeout(0.05)
            self.socket.bind((pod.interface, ALL))
            self.frames, self.over = [], threading.Event()
            self.thread = threading.Thread(target=self.read)
            self.thread.start()

        def read(self):
            while True:
                try:
                    frame, address = self.socket.recvfrom(65536)
                except TimeoutError:
                    if self.over.is_set():
                        return
                    continue
                if address[2] == OUTGOING:
                    self.frames.append(frame[42:] or frame)

        def end(self):
            self.over.set()
            self.thread.join()
            self.socket.close()

        def places(self, events):
            # Of lost frames: their places among all that were sent.
            places, at = [], -1
            for event in events:
                at = self.frames.index(event.frame[42:] or event.frame, at + 1)
                places.append(at)
            return places

    # From one pod to the other: 2 % loss where frames come in, 30 ms where they leave.
    @pytest.mark.lab(Topology.of(2, ipv6=None), link="from_pod.loss=2%,to_pod.delay=30ms,seed=7")
    @pytest.mark.parametrize("run", [1, 2])
    def test_transfer(lab, switch, run):
        recorder = switch.flight_recorder()
        sent = {pod.name: Sent(pod) for pod in lab}
        server = lab["pod2"].popen([sys.executable, "server.py"], stdout=subprocess.PIPE, text=True)
        with server.stdout:
            assert server.stdout.readline() == "ready\\n"
            assert int(lab["pod1"].run([sys.executable, "client.py", "600000"], timeout=120).stdout) == 600_000
        for each in sent.values():
            each.end()
        lost = {name: [e for e in recorder.events if (e.ingress, e.reason) == (name, "link_loss")] for name in sent}
        told = {name: (len(each.frames), each.places(lost[name])) for name, each in sent.items()}
        Path(f"run{run}.json").write_text(json.dumps(told))
"""


def make_certificate(path: Path) -> None:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pod2")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def test_a_transfer_completes_and_loses_the_same_frames_twice(tmp_path: Path) -> None:
    pytest.importorskip("aioquic")
    make_certificate(tmp_path / "server.pem")
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "client.py").write_text(CLIENT)
    done = run_tests(tmp_path, TESTS)
    assert outcomes(done) == {"passed": 2}, done.stdout
    one, two = (json.loads((tmp_path / f"run{run}.json").read_text()) for run in (1, 2))
    for port in ("pod1", "pod2"):
        # Timers make one run a little longer than the other. Which of their frames are lost is the same.
        both = min(one[port][0], two[port][0])
        assert [place for place in one[port][1] if place < both] == [place for place in two[port][1] if place < both]
    sent, lost = one["pod2"]
    assert sent > 400 and len(lost) >= 3
