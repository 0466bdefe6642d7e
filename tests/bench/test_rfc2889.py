"""The methods of RFC 2889, and scaling, on a fake DUT: each finds what is true, for several truths."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from fake_dut import FakeDut
from methods import Altered, about, found

from fastbridge.bench.engines.linux_bridge import LinuxBridge
from fastbridge.bench.methods import Method
from fastbridge.bench.methods.address_caching import AddressCaching
from fastbridge.bench.methods.address_learning import AddressLearning
from fastbridge.bench.methods.broadcast import Broadcast
from fastbridge.bench.methods.congestion import Congestion
from fastbridge.bench.methods.errored_frames import ErroredFrames
from fastbridge.bench.methods.fdb_scaling import FdbScaling
from fastbridge.bench.methods.max_forwarding_rate import MaxForwardingRate
from fastbridge.bench.methods.mesh import Mesh
from fastbridge.bench.methods.port_scaling import PortScaling
from fastbridge.bench.testbed import Testbed
from fastbridge.bench.tester.offer import Stream, steady
from fastbridge.bench.tester.trial import Trial
from fastbridge.errors import BenchError

QUICK: dict[str, Any] = {"seconds": 1.0, "duration_sum": 3.0, "width": 0.005}  # of a search

METHODS: list[Method] = [
    Mesh(**QUICK),
    Mesh(4, "one-to-many", **QUICK),
    Mesh(3, "many-to-one", **QUICK),
    Congestion(),
    MaxForwardingRate(),
    AddressCaching(limit=500),
    AddressLearning(addresses=100),
    ErroredFrames(frames=100),
    Broadcast(stream_seconds=0.5, **QUICK),
    FdbScaling(stations=(2, 50)),
    PortScaling(5),
    PortScaling(3, "mesh", load=2_000.0),
]


def named(method: Method) -> str:
    return f"{method.name} {method.subject}"


def hub(trial: Trial) -> Trial:
    """As of a DUT that sends every frame out of every other port."""
    total = sum(trial.sent)
    return replace(trial, received=tuple(total - sent for sent in trial.sent))


def talkative(trial: Trial) -> Trial:
    """As of a DUT that sends three frames of its own to everybody, as a bridge with IGMP snooping does."""
    return replace(trial, received=tuple(count + 3 for count in trial.received))


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_parameters_are_plain_data(method: Method) -> None:
    parameters = json.loads(json.dumps(asdict(method)))  # type: ignore[call-overload]
    again = type(method)(**{k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()})
    assert again == method and hash(again) == hash(method)
    assert method.primary in method.units and method.section.startswith("RFC ")
    assert method.ports >= 2


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_a_dut_that_forwards_nothing_has_no_result(method: Method) -> None:
    if isinstance(method, PortScaling) and method.load:
        assert found(method, FakeDut(method.ports, loss=1.0)).values["loss"] == 1.0
        return
    with pytest.raises(BenchError, match=r"forwarded none of [0-9,]+ frames|100.0% of legal frames of 64 bytes"):
        method.run(FakeDut(method.ports, loss=1.0, sender_rate=20_000))


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_a_dut_that_cannot_be_overloaded(method: Method) -> None:
    findings = found(method, FakeDut(method.ports, sender_rate=20_000))
    expected = {
        "mesh": 20_000,
        "max-forwarding-rate": 20_000,
        "address-caching": 500,
        "address-learning": 20_000,
        "errored-frames": 0,
        "broadcast": 20_000,
        "fdb-scaling": 20_000,
        "port-scaling": getattr(method, "load", None) or 20_000,
    }
    if method.name == "congestion":
        assert method.primary not in findings.values
        assert "nothing is shown" in findings.remarks[0]
    else:
        assert findings.values[method.primary] == about(expected[method.name])
    if method.name not in ("fdb-scaling", "port-scaling"):
        assert findings.remarks


@pytest.mark.parametrize("method", METHODS, ids=named)
@pytest.mark.parametrize("field", ["sent", "received", "intended", "window_frames"])
def test_a_record_without_counts_says_what_is_missing(method: Method, field: str) -> None:
    def less(trial: Trial) -> Trial:
        return replace(trial, **{field: () if field in ("sent", "received") else None})

    try:
        method.run(Altered(FakeDut(method.ports, sender_rate=20_000), less))
    except BenchError as error:
        assert field in str(error) or re.search("be sent|forwarded none|legal frames", str(error))
    else:  # it was not needed
        assert field in ("intended", "window_frames")


# --- Mesh


@pytest.mark.parametrize("pattern", ["mesh", "one-to-many", "many-to-one"])
@pytest.mark.parametrize(("ports", "rate"), [(3, 5_000), (8, 16_000)])
def test_throughput_of_a_mesh(pattern: str, ports: int, rate: float) -> None:
    method = Mesh(ports, pattern, (64, 512), **QUICK)
    values = found(method, FakeDut(ports, rate=rate, buffer=20, sender_rate=20_000)).values
    assert [values[name] for name in ("ndr", "pdr", "frmol")] == [about(rate)] * 3
    assert values["max_offered"] == about(20_000)
    assert values["loss"] == about(1 - rate / 20_000)


@pytest.mark.parametrize(("pattern", "share"), [("mesh", 1 / 4), ("one-to-many", 1 / 3), ("many-to-one", 1.0)])
def test_a_mesh_is_bound_by_its_busiest_egress(pattern: str, share: float) -> None:
    dut = FakeDut(4, egress_rate=4_000, egress_buffer=20, sender_rate=20_000)
    assert found(Mesh(4, pattern, **QUICK), dut).values["ndr"] == about(4_000 / share)


@pytest.mark.slow
@pytest.mark.parametrize("method", [Mesh(4, **QUICK), PortScaling(4)], ids=named)
def test_flooded_copies_hide_no_loss(method: Method) -> None:
    dut = FakeDut(4, loss=0.25, capacity=1, evicts=False, sender_rate=20_000)
    findings = found(method, dut)
    assert findings.values["loss"] == pytest.approx(0.25, abs=0.02)
    assert findings.values["frmol" if "frmol" in method.units else "rate"] <= 20_000
    assert "ndr" not in findings.values and "pdr" not in findings.values
    assert findings.remarks[0].startswith("more came out than went in")


@pytest.mark.slow
def test_throughput_of_a_dut_that_floods() -> None:
    dut = FakeDut(4, rate=9_000, buffer=20, capacity=1, evicts=False, sender_rate=20_000)
    findings = found(Mesh(4, **QUICK), dut)
    assert findings.values["ndr"] == about(9_000)
    assert findings.values["loss"] == about(1 - 9_000 / 20_000)
    assert any("flooded" in remark for remark in findings.remarks)


# --- Congestion


@pytest.mark.parametrize("egress_rate", [4_000, 9_000])
def test_no_head_of_line_blocking(egress_rate: float) -> None:
    findings = found(Congestion(), FakeDut(4, egress_rate=egress_rate, egress_buffer=20, sender_rate=50_000))
    assert findings.values == {
        "load": about(2 * egress_rate),
        "rate_c": about(egress_rate),
        "rate_c_and_d": about(2 * egress_rate),
        "back_pressure": 0,
        "loss_c": about(1 / 3),
        "loss_d": 0,
    }
    assert findings.remarks == ("no head-of-line blocking",)


@pytest.mark.parametrize("rate", [4_013, 9_013])
def test_what_the_ports_share_blocks_the_head_of_line(rate: float) -> None:
    findings = found(Congestion(), FakeDut(4, rate=rate, buffer=20, sender_rate=50_000))
    assert findings.values["load"] == about(2 * rate)
    loss_c, loss_d = findings.values["loss_c"], findings.values["loss_d"]
    assert 0.75 * loss_c + 0.25 * loss_d == about(0.5)
    assert loss_d > 0.2
    assert len(findings.remarks) == 1
    assert "no limit of their own: it is the DUT as a whole" in findings.remarks[0]


def test_a_dut_that_loses_on_both_alike_is_overloaded_as_a_whole() -> None:
    def alike(trial: Trial) -> Trial:
        a_to_both = len(trial.offer.streams[0].destinations) == 2
        a, b, c, d = trial.received
        return replace(trial, received=(a, b, c, round(d * 0.67))) if a_to_both else trial

    dut = Altered(FakeDut(4, egress_rate=5_000, egress_buffer=20, sender_rate=50_000), alike)
    findings = found(Congestion(), dut)
    assert findings.values["loss_d"] == about(findings.values["loss_c"])
    assert len(findings.remarks) == 1 and "C loses as much: it is the DUT as a whole" in findings.remarks[0]


def test_one_hiccup_does_not_bound_the_congestion() -> None:
    dut = FakeDut(4, egress_rate=5_000, egress_buffer=20, sender_rate=50_000)

    def hiccup(trial: Trial) -> Trial:  # in the first trial of each bound
        first = dut.trials in (1, 4)
        return replace(trial, window_frames=(trial.window_frames or 0) // 2) if first else trial

    assert found(Congestion(), Altered(dut, hiccup)).values["load"] == about(10_000)


def test_head_of_line_blocking_of_ports_with_limits_of_their_own() -> None:
    def blocked(trial: Trial) -> Trial:  # whenever C loses
        a_to_both = len(trial.offer.streams[0].destinations) == 2
        a, b, c, d = trial.received
        return replace(trial, received=(a, b, c, d * 3 // 4)) if a_to_both else trial

    dut = Altered(FakeDut(4, egress_rate=5_000, egress_buffer=20, sender_rate=50_000), blocked)
    findings = found(Congestion(), dut)
    assert findings.values["loss_d"] == about(0.25)
    assert len(findings.remarks) == 1 and findings.remarks[0].startswith("head-of-line blocking: 25.0")


@pytest.mark.parametrize("rate", [7_000, 8_500])
def test_the_load_overloads_c_and_not_the_dut(rate: float) -> None:
    dut = FakeDut(4, rate=rate, buffer=20, egress_rate=4_500, egress_buffer=20, sender_rate=50_000)
    findings = found(Congestion(), dut)
    assert findings.values["load"] == about(rate)
    assert findings.values["loss_c"] > 0.1
    assert findings.values["loss_d"] < 0.02  # nothing but what a load within 2 % of the DUT's limit can lose


def held_back(trial: Trial) -> Trial:
    """As of a DUT that slows down who sends faster than C takes."""
    if trial.offer.phases[0].rate is None:
        return trial
    sent, received = ([round(n * 0.8) for n in counts] for counts in (trial.sent, trial.received))
    return replace(trial, sent=tuple(sent), received=(0, 0, sent[0] - sent[0] // 2 + sent[1], received[3]))


def test_a_tester_that_cannot_overload_c_sees_no_back_pressure() -> None:
    findings = found(Congestion(), Altered(FakeDut(4, sender_rate=20_000), held_back))
    assert set(findings.values) == {"rate_c", "rate_c_and_d"}
    assert "do not overload C" in findings.remarks[0]


def test_back_pressure() -> None:
    dut = Altered(FakeDut(4, egress_rate=5_000, egress_buffer=20, sender_rate=50_000), held_back)
    findings = found(Congestion(), dut)
    assert findings.values["back_pressure"] == about(0.2)
    assert findings.values["loss_c"] == findings.values["loss_d"] == 0
    assert findings.remarks == (
        "no head-of-line blocking",
        "back pressure: 20.0% of the intended frames were not offered",
    )


# --- Maximum forwarding rate


@pytest.mark.parametrize("rate", [3_000, 17_000])
def test_maximum_forwarding_rate_of_a_token_bucket(rate: float) -> None:
    values = found(MaxForwardingRate(), FakeDut(rate=rate, buffer=20, sender_rate=20_000)).values
    assert values["mfr"] == values["frmol"] == about(rate)
    assert values["max_offered"] == 20_000


@pytest.mark.parametrize("peak", [6_000, 15_000])
def test_a_dut_that_forwards_less_the_more_it_is_overloaded(peak: float) -> None:
    def livelock(trial: Trial) -> Trial:
        rate = trial.offered_rate or 0.0
        out = rate if rate <= peak else max(peak / 10, 2 * peak - rate)
        return replace(trial, window_frames=round(out * trial.window_seconds), received=(0, round(out * trial.seconds)))

    findings = found(MaxForwardingRate(), Altered(FakeDut(sender_rate=20_000), livelock))
    assert findings.values["mfr"] == findings.values["mfr_load"] == about(peak)
    assert findings.values["frmol"] == about(max(peak / 10, 2 * peak - 20_000))
    loads = [load for load, _ in findings.series["forwarding_rate"]]
    assert loads == sorted(loads) and loads[0] == about(peak)  # it stops where nothing can be gained any more


# --- Address caching capacity


@pytest.mark.parametrize("evicts", [True, False])
@pytest.mark.parametrize("capacity", [2, 100, 1_337])
def test_capacity(capacity: int, evicts: bool) -> None:
    findings = found(AddressCaching(limit=3_000), FakeDut(3, capacity=capacity, evicts=evicts))
    assert findings.values == {"capacity": capacity, "rate": 50_000}
    tried = dict(findings.series["flooded"])
    assert tried[capacity + 1] > 0 and tried[capacity] == 0
    assert findings.remarks == ()


def test_a_table_that_takes_no_more_is_found_in_a_few_tries() -> None:
    dut = FakeDut(3, capacity=2_500, evicts=False)
    found(AddressCaching(limit=20_000), dut)
    assert dut.trials == 3 * 4  # few, too many, what it held, and one more


def test_capacity_to_within_a_width() -> None:
    dut = FakeDut(3, capacity=1_234)
    assert 1_234 * 0.98 < found(AddressCaching(limit=3_000, width=0.02), dut).values["capacity"] <= 1_234


def test_a_table_in_which_addresses_collide() -> None:
    def collide(trial: Trial) -> Trial:  # of n addresses beyond 300 every fifth
        stream = trial.offer.streams[0]
        return replace(trial, received=(*trial.received[:2], max(0, stream.targets - 300) // 5))

    findings = found(AddressCaching(limit=5_000), Altered(FakeDut(3), collide))
    assert findings.values["capacity"] == about(305)


def test_capacity_of_a_hub() -> None:
    findings = found(AddressCaching(limit=1_000), Altered(FakeDut(3), hub))
    assert findings.values["capacity"] == 0
    assert findings.remarks == ("frames to a single station are flooded or lost: the DUT does not learn",)


@pytest.mark.parametrize("method", [AddressCaching(limit=1_000), AddressLearning(addresses=500)], ids=named)
def test_what_the_dut_says_itself_is_no_flood(method: Method) -> None:
    dut = FakeDut(3, capacity=600, sender_rate=20_000)
    assert (
        found(method, Altered(dut, talkative)).values[method.primary]
        == {
            "address-caching": 600,
            "address-learning": 20_000,
        }[method.name]
    )


def test_a_test_port_that_is_forgotten_is_an_address_too_many() -> None:
    def forgetful(trial: Trial) -> Trial:  # floods the learning frames from the 401st on
        flooded = max(0, trial.offer.streams[0].sources - 400)
        return replace(trial, received=(*trial.received[:2], flooded)) if flooded else trial

    findings = found(AddressCaching(limit=2_000), Altered(FakeDut(3), forgetful))
    assert findings.values["capacity"] == 401


def test_wrong_guesses_are_not_followed_for_ever() -> None:
    def one_missing(trial: Trial) -> Trial:
        return replace(trial, received=(*trial.received[:2], 1)) if trial.offer.streams[0].targets > 50 else trial

    dut = FakeDut(3)
    assert found(AddressCaching(limit=5_000), Altered(dut, one_missing)).values["capacity"] == 51
    assert dut.trials < 3 * 25


@pytest.mark.parametrize("method", [AddressCaching(limit=1_000), AddressLearning(addresses=400)], ids=named)
def test_a_frame_that_is_lost_once_decides_nothing(method: Method) -> None:
    seen: set[int] = set()

    def hiccup(trial: Trial) -> Trial:
        count = trial.offer.streams[0].targets
        if count == 1 or count in seen:
            return trial
        seen.add(count)
        return replace(trial, received=(trial.received[0] - 1, *trial.received[1:]))

    dut = FakeDut(3, capacity=500, sender_rate=20_000)
    expected = {"address-caching": 500, "address-learning": 20_000}[method.name]
    assert found(method, Altered(dut, hiccup)).values[method.primary] == expected


def test_a_dut_that_learns_slowly_is_asked_slowly() -> None:
    dut = FakeDut(3, rate=4_000, buffer=20, capacity=1_500)
    assert found(AddressCaching(limit=2_000), dut).values == {"capacity": 1_500, "rate": 50_000 / 16}


def test_learning_frames_that_are_lost_are_sent_more_slowly() -> None:
    def lossy(trial: Trial) -> Trial:
        stream, rate = trial.offer.streams[0], trial.offer.phases[0].rate or 0
        too_fast = stream.sources > 1 and rate > 20_000
        return replace(trial, received=(0, stream.sources - 5, 0)) if too_fast else trial

    values = found(AddressCaching(limit=500), Altered(FakeDut(3), lossy)).values
    assert values == {"capacity": 500, "rate": 12_500}


def test_loss_is_remarked() -> None:
    findings = found(AddressCaching(limit=500), FakeDut(3, loss=0.1))
    assert findings.values["capacity"] < 500
    assert any("lost with 500 addresses" in remark for remark in findings.remarks)


# --- Address learning rate


@pytest.mark.parametrize("rate", [800, 13_000])
def test_learning_rate(rate: float) -> None:
    method = AddressLearning(addresses=400)
    findings = found(method, FakeDut(3, learning_rate=rate, sender_rate=20_000))
    assert findings.values["learning_rate"] == about(rate)
    assert findings.values["flooded_at_max"] == pytest.approx(1 - rate / 20_000, abs=0.01)
    for learned, flooded in findings.series["flooded"]:  # of 400, one more is learned at the very beginning
        assert flooded == pytest.approx(max(0.0, 1 - rate / learned), abs=0.004)
    assert findings.remarks == ()


@pytest.mark.parametrize("evicts", [True, False])
def test_more_addresses_than_there_is_room_for(evicts: bool) -> None:
    findings = found(AddressLearning(addresses=400), FakeDut(3, capacity=101, evicts=evicts, sender_rate=20_000))
    assert "learning_rate" not in findings.values
    assert findings.values["flooded_at_max"] >= 0.74
    assert "does not hold 400 addresses" in findings.remarks[0]


def test_learning_rate_of_a_hub() -> None:
    findings = found(AddressLearning(addresses=50), Altered(FakeDut(3, sender_rate=20_000), hub))
    assert findings.values == {"max_offered": about(20_000), "flooded_at_max": 1}
    assert "100.0% of the frames are flooded" in findings.remarks[0]


# --- Errored frames


@pytest.mark.parametrize(
    ("filters", "runts", "oversize"),
    [((0, 1 << 16), 0, 0), ((64, 1518), 1, 1), ((64, 1 << 16), 1, 0), ((33, 1522), 2 / 3, 1 / 3)],
)
def test_errored_frames(filters: tuple[int, int], runts: float, oversize: float) -> None:
    findings = found(ErroredFrames(), FakeDut(filters=filters))
    assert findings.values == {"runts_filtered": pytest.approx(runts), "oversize_filtered": pytest.approx(oversize)}
    curve = [(size, float(not filters[0] <= size <= filters[1])) for size in (18, 32, 63, 1519, 1522, 9018)]
    assert list(findings.series["filtered"]) == curve
    for remark, (size, filtered) in zip(findings.remarks, curve, strict=False):
        assert remark == f"{size} bytes: {'filtered' if filtered else 'forwarded'}"
    assert "CRC" in findings.remarks[-1]


def test_frames_that_cannot_be_sent_are_not_filtered() -> None:
    def short_link(trial: Trial) -> Trial:
        too_long = trial.offer.streams[0].sizes[0] > 1518
        return replace(trial, sent=(0, 0), received=(2, 2), refused=trial.sent[0]) if too_long else trial

    findings = found(ErroredFrames(), Altered(FakeDut(), short_link))
    assert findings.values == {"runts_filtered": 0}
    assert [size for size, _ in findings.series["filtered"]] == [18, 32, 63]
    assert findings.remarks[3] == "1519 bytes: cannot be sent over this link, so the DUT is not asked"


def test_runts_that_come_out_padded() -> None:
    def pad(trial: Trial) -> Trial:
        return replace(trial, window_bytes=max(trial.window_bytes, 60 * (trial.window_frames or 0)))

    findings = found(ErroredFrames(), Altered(FakeDut(), pad))
    assert findings.remarks[:3] == tuple(f"{size} bytes: forwarded, padded to 64" for size in (18, 32, 63))


def test_legal_frames_must_not_be_missing() -> None:
    with pytest.raises(BenchError, match=r"100.0% of legal frames of 1518 bytes are lost"):
        ErroredFrames().run(FakeDut(filters=(0, 1517)))


# --- Broadcast


@pytest.mark.parametrize(("ports", "rate"), [(4, 5_000), (9, 16_000)])
def test_broadcast(ports: int, rate: float) -> None:
    method = Broadcast(ports, stream_seconds=0.5, **QUICK)
    findings = found(method, FakeDut(ports, rate=rate, buffer=20, delay=3e-4, sender_rate=20_000))
    assert [findings.values[name] for name in ("ndr", "pdr", "frmol")] == [about(rate)] * 3
    assert findings.values["loss"] == about(1 - rate / 20_000)
    loads, medians = zip(*findings.series["median"], strict=True)
    assert loads == (about(rate / 10), about(rate / 2), about(rate * 0.9))
    assert medians == (about(300 + 1e6 / rate),) * 3
    assert findings.values["at_50_p99"] == medians[1]


def test_large_buffers_do_not_make_broadcasts_faster() -> None:
    dut = FakeDut(4, rate=5_000, buffer=5_000, sender_rate=20_000)
    findings = found(Broadcast(4, (64,), 0.5, 0.4, 1.2, 0.05), dut)
    assert 4_750 < findings.values["ndr"] < 5_250 * 1.01
    assert findings.values["loss"] == about(0.75)


def test_a_port_that_loses_broadcasts_bounds_their_rate() -> None:
    dut = FakeDut(4, egress_rate=7_000, egress_buffer=20, sender_rate=20_000)
    assert found(Broadcast(stream_seconds=0.5, **QUICK), dut).values["ndr"] == about(7_000)


def test_broadcasts_that_are_always_lost_have_no_latency() -> None:
    findings = found(Broadcast(stream_seconds=0.5, **QUICK), FakeDut(4, loss=0.05, sender_rate=20_000))
    assert findings.values["frmol"] == about(19_000)
    assert findings.remarks[-1].startswith("no latency")


# --- Scaling


@pytest.mark.parametrize("evicts", [True, False])
def test_fdb_scaling(evicts: bool) -> None:
    method = FdbScaling(stations=(2, 100, 1_000))
    dut = FakeDut(3, rate=9_013, buffer=20, capacity=500, evicts=evicts, sender_rate=20_000)
    findings = found(method, dut)
    assert findings.series["rate"] == ((2, about(9_013)), (100, about(9_013)), (1_000, about(9_013)))
    flooded = [ratio for _, ratio in findings.series["flooded"]]
    assert flooded[:2] == [0, 0] and flooded[2] > 0.1
    assert len(findings.remarks) == 1 and "were flooded with 1,000 stations" in findings.remarks[0]
    assert "or frames were lost while learning" in findings.remarks[0]
    assert findings.values == {"fewest": about(9_013), "most": about(9_013), "kept": about(1)}


def test_a_rate_that_falls_with_the_stations() -> None:
    def slow(trial: Trial) -> Trial:
        return replace(trial, window_frames=round((trial.window_frames or 0) / trial.offer.streams[0].targets ** 0.5))

    values = found(FdbScaling(stations=(2, 20, 200)), Altered(FakeDut(3, sender_rate=20_000), slow)).values
    assert values["kept"] == about(0.1)


def test_a_rate_of_nothing_is_no_denominator() -> None:
    def silent(trial: Trial) -> Trial:
        return replace(trial, window_frames=0) if trial.offer.streams[0].targets == 1 else trial

    values = found(FdbScaling(stations=(2, 20)), Altered(FakeDut(3, sender_rate=20_000), silent)).values
    assert values["fewest"] == 0 and "kept" not in values


def test_what_the_dut_learned_before_takes_no_room() -> None:
    dut = FakeDut(3, capacity=500, evicts=False, sender_rate=20_000)
    dut.trial(steady(Stream(0, (1,), sources=400, first=1000), 1.0))
    assert found(FdbScaling(stations=(2, 400)), dut).remarks == ()


def test_stations_that_were_not_used_are_remarked() -> None:
    findings = found(FdbScaling(stations=(2, 5_000), seconds=0.5), FakeDut(3, sender_rate=4_000))
    assert "only 2,000 of 5,000 stations were used" in findings.remarks[0]


@pytest.mark.parametrize("pattern", ["ring", "mesh"])
@pytest.mark.parametrize("ports", [2, 7, 32])
def test_port_scaling(pattern: str, ports: int) -> None:
    values = found(PortScaling(ports, pattern), FakeDut(ports, rate=9_000, buffer=20, sender_rate=20_000)).values
    assert values["rate"] == about(9_000)
    assert values["loss"] == about(0.55)
    assert values["offered"] == about(20_000)


@pytest.mark.parametrize("ports", [2, 5])
def test_a_ring_uses_every_egress_alike(ports: int) -> None:
    dut = FakeDut(ports, egress_rate=3_000, egress_buffer=20, sender_rate=20_000)
    assert found(PortScaling(ports), dut).values["rate"] == about(3_000 * ports)


@pytest.mark.parametrize(("load", "rate"), [(5_000.0, 5_000), (15_000.0, 9_000)])
def test_port_scaling_at_a_load(load: float, rate: float) -> None:
    findings = found(PortScaling(6, load=load), FakeDut(6, rate=9_000, buffer=20, sender_rate=20_000))
    assert findings.values["rate"] == about(rate)
    assert findings.values["offered"] == about(load)
    assert findings.remarks == ()


def test_a_load_the_tester_cannot_offer() -> None:
    findings = found(PortScaling(2, load=30_000.0), FakeDut(2, sender_rate=20_000))
    assert findings.remarks == ("only 20,000 of 30,000 frames/s were offered",)


# --- Parameters


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mesh(pattern="star"), "'star'; there are mesh, one-to-many, many-to-one"),
        (lambda: Mesh(1), "ports is 1, and must be 2 or more"),
        (lambda: PortScaling(pattern="pair"), "'pair'; there are ring, mesh"),
        (lambda: PortScaling(1), "ports is 1, and must be 2 or more"),
        (lambda: Broadcast(1), "ports is 1, and must be 2 or more"),
        (lambda: AddressCaching(limit=1), "limit is 1, and must be 2 or more"),
        (lambda: AddressCaching(width=-0.1), "width is -0.1, and must be 0 or more"),
        (lambda: AddressCaching(rate=math.inf), "rate is inf"),
        (lambda: AddressLearning(addresses=0), "addresses is 0"),
        (lambda: AddressLearning(width=0.0), "width is 0.0, and must be greater than 0"),
        (lambda: ErroredFrames(frames=0), "frames is 0"),
        (lambda: PortScaling(load=0.0), "load is 0.0, and must be greater than 0"),
        (lambda: PortScaling(seconds=math.nan), "seconds is nan"),
        (lambda: Mesh(width=1.0), "width is 1.0, and must be less than 1"),
        (lambda: Broadcast(stream_seconds=-1.0), "stream_seconds is -1.0"),
        (lambda: Congestion(seconds=0.0), "seconds is 0.0"),
        (lambda: MaxForwardingRate(steps=1), "steps is 1, and must be 2 or more"),
        (lambda: MaxForwardingRate(pattern="ring"), "'ring'; there are pair, bidirectional"),
        (lambda: FdbScaling(seconds=0.0), "seconds is 0.0"),
        (lambda: ErroredFrames(runts=(64,)), "a runt has less than 64"),
        (lambda: ErroredFrames(oversize=(1518,)), "more than 1518"),
        (lambda: FdbScaling(stations=(1, 10)), "2 or more"),
        (lambda: FdbScaling(stations=(100, 10)), "ascending"),
    ],
)
def test_parameters_that_make_no_sense(make: Callable[[], Method], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        make()


@pytest.mark.parametrize(
    ("method", "subject"),
    [
        (Mesh(), "64 B, mesh, 5 ports"),
        (PortScaling(64, load=1000.0), "64 B, ring, 1,000 frames/s, 64 ports"),
        (Broadcast(), "64 B, 4 ports"),
        (AddressCaching(), "up to 1,000,000 addresses"),
        (AddressLearning(), "10,000 addresses"),
        (ErroredFrames(), "18/32/63/1519/1522/9018 B"),
        (FdbScaling(), "64 B, up to 1,000,000 stations"),
    ],
)
def test_subjects(method: Method, subject: str) -> None:
    assert method.subject == subject


# --- Live


@pytest.mark.live
@pytest.mark.parametrize(
    ("method", "primary"),
    [(ErroredFrames(frames=200), 0.0), (AddressCaching(limit=300), 300.0)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_on_a_linux_bridge(method: Method, primary: float) -> None:
    with Testbed(LinuxBridge(), method.ports) as bed:
        findings = found(method, bed)
    assert findings.values[method.primary] == primary
    if isinstance(method, ErroredFrames):
        assert "oversize_filtered" not in findings.values  # the pods' own links refuse such frames
