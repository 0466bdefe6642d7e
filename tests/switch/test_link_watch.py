"""Links as rtnetlink tells of them: found by any name, followed by their index."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest
from live import eventually

from fastbridge.addresses import MacAddress
from fastbridge.lab.links import Links
from fastbridge.lab.namespaces import Namespace, NamespaceHelper
from fastbridge.link_watch import Link, LinkWatch

pytestmark = pytest.mark.live

LONG = "an-alternative-name-of-more-than-15-characters"


@pytest.fixture
def pair() -> Iterator[tuple[LinkWatch, Links, Namespace]]:
    """A veth pair: `here`, watched, and `there` in another namespace; both down."""
    with NamespaceHelper() as helper, Links() as links:
        elsewhere = helper.create()
        links.add_pair("here", None, "there", MacAddress(0x020000000001), elsewhere.fd, 1500)
        watch = LinkWatch()
        yield watch, links, elsewhere
        watch.close()
        if links.exists("here"):
            links.delete("here")
        elsewhere.close()


def the_link(watch: LinkWatch) -> Link:
    link = watch.look("here")
    assert link is not None
    return link


def hear(watch: LinkWatch, index: int, what: str) -> Link:
    """The first change of a link for which an expression in terms of `link` holds."""
    heard: list[Link] = []

    def came() -> bool:
        heard.extend(link for link in watch.changes([index]) if link.index == index and eval(what, {"link": link}))
        return bool(heard)

    eventually(came, what)
    return heard[0]


def test_a_link_has_one_index_under_all_its_names(pair: tuple[LinkWatch, Links, Namespace]) -> None:
    watch, links, _ = pair
    link = the_link(watch)
    for name in ("other", LONG):
        links.add_altname("here", name)
        assert watch.look(name) == link
    assert watch.look(link.index) == link
    assert (link.name, link.mtu, link.master, link.ethernet, link.up, link.gone) == ("here", 1500, 0, True, False, "")


@pytest.mark.parametrize("which", ["no-such-link", LONG, "", "x" * 300, "é☃", 1 << 30])
def test_what_is_not_there_is_none(pair: tuple[LinkWatch, Links, Namespace], which: str | int) -> None:
    assert pair[0].look(which) is None


@pytest.mark.parametrize("others", [0, 150, 500])
def test_only_changes_of_some_are_heard(pair: tuple[LinkWatch, Links, Namespace], others: int) -> None:
    """With very many all are: one that hears too much is right, too."""
    watch, links, _ = pair
    index = the_link(watch).index
    watch.hear_of([*range(100_000, 100_000 + others), index])
    links.set("lo", mtu=60_000)
    links.set("lo", mtu=65_536)
    links.set("here", mtu=1400)
    heard: list[Link] = []
    eventually(lambda: heard.extend(watch.changes([])) or (heard and heard[-1].mtu == 1400), "its own change")
    assert ("lo" in {link.name for link in heard}) == (others > 200)
    watch.hear_of([])
    links.set("here", mtu=1500)
    assert not list(watch.changes([]))


def test_changes_are_heard(pair: tuple[LinkWatch, Links, Namespace]) -> None:
    watch, links, elsewhere = pair
    index = the_link(watch).index
    links.set("here", state="up")
    assert not hear(watch, index, "link.up").carrier
    with Links(elsewhere) as inside:
        inside.set("there", state="up")
    hear(watch, index, "link.carrier and link.operstate == 6")
    links.add_bridge("bridge", ["here"])
    bridge = watch.look("bridge")
    hear(watch, index, f"link.master == {bridge and bridge.index}")
    links.delete("bridge")
    hear(watch, index, "not link.master")  # a bridge's own word of a port that left is not taken for its end
    assert the_link(watch).queue == "noqueue"
    if shutil.which("tc"):
        subprocess.run(["tc", "qdisc", "add", "dev", "here", "root", "pfifo"], check=True)
        hear(watch, index, "link.queue == 'pfifo'")
    falls = the_link(watch).falls
    with Links(elsewhere) as inside:
        inside.set("there", state="down")
    hear(watch, index, f"link.up and not link.running and link.falls == {falls + 1}")
    links.set("here", state="down")
    links.set("here", ifname="elsewhere")
    hear(watch, index, "link.name == 'elsewhere' and not link.gone")
    links.delete("elsewhere")
    hear(watch, index, "link.gone == 'deleted'")


@pytest.mark.skipif(shutil.which("tc") is None, reason="tc is not installed (package iproute2)")
def test_a_link_that_ends_while_its_queue_is_asked_for_tells_its_last_counts(
    pair: tuple[LinkWatch, Links, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look comes too late, and the message of the end is not read yet."""
    watch, links, elsewhere = pair
    index, look = the_link(watch).index, watch.look
    with Links(elsewhere) as inside:
        inside.set("there", state="up", mtu=1000)
    links.set("here", state="up")
    eventually(lambda: the_link(watch).running, "a carrier")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sending, pytest.raises(OSError, match="buffer"):
        sending.bind(("here", 0))
        sending.send(bytes(1400))  # refused by the far end
    lost = the_link(watch).tx_dropped
    assert lost == 1
    list(watch.changes([index]))
    subprocess.run(["tc", "qdisc", "add", "dev", "here", "root", "pfifo"], check=True)

    def late(which: str | int) -> Link | None:
        links.delete("here")
        return look(which)

    monkeypatch.setattr(watch, "look", late)
    assert [link for link in watch.changes([index]) if link.gone] == []
    assert [(link.gone, link.tx_dropped) for link in watch.changes([index])][-1] == ("deleted", lost)


def test_a_link_that_moves_away_is_not_deleted(pair: tuple[LinkWatch, Links, Namespace]) -> None:
    watch, links, elsewhere = pair
    index = the_link(watch).index
    links.set("here", net_ns_fd=elsewhere.fd)
    hear(watch, index, "link.gone == 'moved'")


def test_what_was_too_much_is_looked_at_afresh(
    pair: tuple[LinkWatch, Links, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastbridge.link_watch._BUFFER_BYTES", 1)  # the kernel's least: two changes, or so
    _, links, _ = pair
    watch = LinkWatch()
    index = the_link(watch).index
    for state in ("up", "down") * 20:
        links.set("here", state=state)
    links.set("here", mtu=1400)
    assert [link.mtu for link in watch.changes([index, 1 << 30]) if link.index == index][-1] == 1400
    for state in ("up", "down") * 20:
        links.set("here", state=state)
    assert [link.gone for link in watch.changes([1 << 30]) if link.index == 1 << 30] == ["deleted"]
    watch.close()
