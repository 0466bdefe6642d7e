"""nf_tables over netlink: all changes or none, the refused one named, owned tables gone with their socket."""

from __future__ import annotations

import errno

import pytest

from fastbridge.switch.nftables import Batch, Nftables, load_priority, load_value, set_priority, unless, verdict

pytestmark = pytest.mark.live


def table(name: str) -> Batch:
    batch = Batch(name)
    batch.add_table()
    return batch


def test_an_owned_table_is_gone_with_its_socket() -> None:
    for _ in range(2):
        with Nftables() as one, Nftables() as other:
            one.apply(table("ours"))
            with pytest.raises(FileExistsError, match="table ours"):
                one.apply(table("ours"))
            with pytest.raises(OSError, match="table ours"):  # nor may anybody else change it
                other.apply(table("ours"))


def test_all_changes_or_none_and_the_refused_one_is_named() -> None:
    with Nftables() as nftables:
        nftables.apply(table("ours"))
        batch = Batch("ours")
        batch.add_chain("at-lo", "ingress", ["lo"])
        batch.add_rule("nowhere", load_priority(), unless(bytes(4)), verdict("drop"))
        with pytest.raises(FileNotFoundError, match="rule of chain nowhere"):
            nftables.apply(batch)
        batch = Batch("ours")
        batch.delete_chain("at-lo")
        with pytest.raises(FileNotFoundError, match="chain at-lo"):
            nftables.apply(batch)


def test_a_long_batch_takes_several_transactions() -> None:
    """Longer than any send buffer that an ordinary user gets."""
    with Nftables() as nftables:
        batch = table("ours")
        for number in range(300):
            batch.add_chain(f"chain-{number}", "egress", ["lo"], priority=number)
            for _ in range(4):
                batch.add_rule(f"chain-{number}", load_priority(), unless(bytes(4)), verdict("accept"))
            batch.add_rule(f"chain-{number}", load_value(bytes(4), 0), set_priority(0))
        assert sum(len(message) for _, message in batch.messages) > 200_000
        nftables.apply(batch)
        nftables.apply(deletes(300))


def deletes(chains: int) -> Batch:
    batch = Batch("ours")
    for number in range(chains):
        batch.delete_chain(f"chain-{number}")
    return batch


def test_without_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer to the whole batch, not to one of its changes, is an error, too."""
    with Nftables() as nftables:
        monkeypatch.setattr("fastbridge.switch.nftables._SUBSYSTEM", 0xEE)  # one that no kernel has
        with pytest.raises(OSError) as caught:
            nftables.apply(table("ours"))
        assert caught.value.errno in (errno.EINVAL, errno.EOPNOTSUPP)
        assert "nf_tables: " in str(caught.value)
