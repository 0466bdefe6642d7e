"""The methods of RFC 2544, 9004, 6201 and 2285 on a fake DUT: each finds what is true, for several truths."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from fake_dut import FakeDut
from methods import Altered, about, found

from fastbridge.bench.methods import Method, patterns, search
from fastbridge.bench.methods.back_to_back import BackToBack
from fastbridge.bench.methods.forwarding_rate import ForwardingRate
from fastbridge.bench.methods.frame_loss import FrameLoss
from fastbridge.bench.methods.latency import Latency, LatencyAtLoad
from fastbridge.bench.methods.max_forwarding_rate import MaxForwardingRate
from fastbridge.bench.methods.measurer import Recorder
from fastbridge.bench.methods.ping import Ping
from fastbridge.bench.methods.recovery import Recovery
from fastbridge.bench.methods.request_response import RequestResponse
from fastbridge.bench.methods.reset import Reset
from fastbridge.bench.methods.tcp_bulk import TcpBulk
from fastbridge.bench.methods.throughput import Throughput
from fastbridge.bench.tester.offer import IMIX, Stream, steady
from fastbridge.bench.tester.trial import CAPACITY, Trial
from fastbridge.errors import BenchError

QUICK: dict[str, Any] = {"seconds": 1.0, "duration_sum": 3.0, "width": 0.005}  # of a search

METHODS: list[Method] = [
    Throughput(**QUICK),
    Throughput(IMIX, "bidirectional", **QUICK),
    Latency(stream_seconds=0.5, **QUICK),
    LatencyAtLoad(load=5000.0, seconds=0.5),
    FrameLoss(seconds=0.5),
    BackToBack(repeats=3, **QUICK),
    Recovery(overload_seconds=0.5, relief_seconds=0.5, repeats=2, **QUICK),
    Reset(seconds=1.0, repeats=2),
    ForwardingRate(kind="udp", flows=4, sources=3, targets=3, seconds=0.5),
    TcpBulk(seconds=0.5),
    RequestResponse(seconds=0.5),
    Ping(seconds=0.5),
]
OF_FRAMES = [method for method in METHODS if not isinstance(method, (TcpBulk, RequestResponse, Ping))]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.name} {method.subject}")
def test_parameters_are_plain_data_and_results_replayable(method: Method) -> None:
    parameters = json.loads(json.dumps(asdict(method)))  # type: ignore[call-overload]
    again = type(method)(**{k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()})
    assert again == method and hash(again) == hash(method)
    assert method.ports == 2 and method.section.startswith(("RFC ", "netperf "))
    findings = found(method, FakeDut(rate=10_000, buffer=50, sender_rate=20_000))
    assert method.primary in findings.values


# --- Throughput


@pytest.mark.parametrize("rate", [3_000, 11_111, 26_000])
@pytest.mark.parametrize("pattern", ["pair", "bidirectional"])
def test_throughput_of_a_token_bucket(rate: float, pattern: str) -> None:
    sizes = (64, 1518)
    findings = found(Throughput(sizes, pattern, **QUICK), FakeDut(rate=rate, buffer=20, sender_rate=30_000))
    assert findings.values == {
        "ndr": about(rate),
        "pdr": about(rate),
        "ndr_gbps": about(rate * (60 + 1514) / 2 * 8e-9),
        "pdr_gbps": about(rate * (60 + 1514) / 2 * 8e-9),
        "max_offered": about(30_000),
        "frmol": about(rate),
    }
    assert findings.remarks == ()


def test_a_little_loss_at_every_load_spares_the_pdr() -> None:
    findings = found(Throughput(**QUICK), FakeDut(rate=10_000, buffer=20, loss=0.003, sender_rate=20_000))
    assert findings.values["pdr"] == about(10_000)
    assert findings.values["ndr"] < 1_000  # loads of so few frames that not even one is lost


def test_more_loss_leaves_no_throughput() -> None:
    findings = found(Throughput(**QUICK), FakeDut(loss=0.05, sender_rate=20_000))
    assert findings.values == {"max_offered": 20_000.0, "frmol": about(19_000)}
    assert [remark[:6] for remark in findings.remarks] == ["no NDR", "no PDR"]


def test_throughput_the_tester_cannot_reach() -> None:
    findings = found(Throughput(**QUICK), FakeDut(sender_rate=20_000))
    assert findings.values["ndr"] == findings.values["pdr"] == 20_000
    assert all("≥ 20,000 frames/s" in remark for remark in findings.remarks) and len(findings.remarks) == 2


def test_frames_that_were_not_sent_bound_the_throughput_and_are_not_laid_to_the_dut() -> None:
    def short(trial: Trial) -> Trial:
        rate = trial.offer.phases[0].rate
        if rate is None or rate <= 15_000:
            return trial
        return replace(trial, sent=(trial.sent[0] - 200, 0), received=(0, trial.received[1] - 200))

    findings = found(Throughput(**QUICK), Altered(FakeDut(sender_rate=20_000), short))
    assert findings.values["ndr"] == findings.values["pdr"] == about(15_000)
    assert all("the tester did not offer" in remark for remark in findings.remarks) and len(findings.remarks) == 2


@pytest.mark.parametrize(("seconds", "width"), [(0.3, 0.05), (1.0, 0.005)])
@pytest.mark.parametrize("pattern", ["pair", "bidirectional"])
def test_large_buffers_are_no_throughput(pattern: str, seconds: float, width: float) -> None:
    rate = 20_000
    dut = FakeDut(rate=rate, buffer=10_000, sender_rate=80_000)
    values = found(Throughput((64,), pattern, seconds, 3 * seconds, width), dut).values
    highest = max(width, 0.005 / (0.9 * seconds))  # what a window of that length can tell
    for goal in ("ndr", "pdr"):
        assert rate * (1 - width) < values[goal] < rate * (1 + highest) * 1.005


def test_large_buffers_are_loss_in_a_curve() -> None:
    findings = found(FrameLoss(seconds=0.4), FakeDut(rate=22_000, buffer=10**6, sender_rate=50_000))
    assert findings.values["loss_free"] == 20_000
    assert findings.values["loss_at_max"] == about(1 - 22_000 / 50_000)


def test_a_dut_with_large_buffers_can_be_overloaded() -> None:
    findings = found(MaxForwardingRate(seconds=0.4), FakeDut(rate=22_000, buffer=10**6, sender_rate=50_000))
    assert findings.values["mfr"] == about(22_000) and findings.remarks == ()
    loss = found(ForwardingRate(seconds=0.4), FakeDut(rate=22_000, buffer=10**6, sender_rate=50_000)).values["loss"]
    assert loss == about(1 - 22_000 / 50_000)


def test_a_sender_behind_at_the_edge_of_a_window_is_no_loss() -> None:
    def behind(trial: Trial) -> Trial:
        late = round(0.004 * (trial.offered_rate or 0))
        return replace(trial, window_frames=(trial.window_frames or 0) - late)

    method = Throughput(seconds=1.0, duration_sum=3.0, width=0.002)
    findings = found(method, Altered(FakeDut(rate=8_000, buffer=20, sender_rate=20_000), behind))
    assert findings.values["ndr"] == about(8_000)


def test_a_hiccup_in_every_third_trial_does_not_decide() -> None:
    def hiccup(trial: Trial) -> Trial:
        return replace(trial, received=(0, trial.received[1] - 7)) if dut.trials % 3 == 0 else trial

    dut = FakeDut(rate=8_000, buffer=20, sender_rate=20_000)
    findings = found(Throughput(seconds=1.0, duration_sum=9.0), Altered(dut, hiccup))
    assert findings.values["ndr"] == about(8_000)


@pytest.mark.parametrize("rate", [3.0, 40.0])
def test_tiny_rates(rate: float) -> None:
    method = Throughput(seconds=1000 / rate, duration_sum=1000 / rate, width=0.01)
    assert found(method, FakeDut(rate=rate, buffer=1, sender_rate=5 * rate)).values["ndr"] == about(rate)


def test_too_few_frames_for_a_search() -> None:
    with pytest.raises(BenchError, match="2 frames/s are too few"):
        Throughput(**QUICK).run(FakeDut(sender_rate=2))


@pytest.mark.parametrize("method", OF_FRAMES, ids=lambda method: f"{method.name} {method.subject}")
def test_a_dut_that_loses_everything_has_no_result(method: Method) -> None:
    with pytest.raises(BenchError, match=r"forwarded none of [0-9,]+ frames|no sample arrived"):
        method.run(FakeDut(loss=1.0, sender_rate=20_000))


def test_a_tcp_connection_without_a_byte() -> None:
    with pytest.raises(BenchError, match="not a byte"):
        TcpBulk().run(FakeDut(tcp_rate=0))


def test_a_search_that_does_not_settle_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_DURATION_SUMS", 1)
    with pytest.raises(BenchError, match="does not settle"):
        Throughput(**QUICK).run(FakeDut(rate=10_000, sender_rate=20_000))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MLRsearch", None)
    with pytest.raises(BenchError, match=r"pip install -e '\.\[bench\]'"):
        Throughput(**QUICK).run(FakeDut(sender_rate=20_000))


def test_an_unknown_pattern() -> None:
    with pytest.raises(BenchError, match=r"'ring'.*pair, bidirectional"):
        Throughput(pattern="ring").run(FakeDut())


def test_a_record_without_counts_says_what_is_missing() -> None:
    def without(**fields: Any) -> Altered:
        return Altered(FakeDut(sender_rate=20_000), lambda trial: replace(trial, **fields))

    for method in METHODS:
        if method.name not in ("tcp-bulk", "request-response", "ping", "latency-at-load"):
            with pytest.raises(BenchError, match="no window_frames: it is not one of frames, or its record is broken"):
                method.run(without(window_frames=None))
    with pytest.raises(BenchError, match="no intended"):
        Throughput(**QUICK).run(without(intended=None))


@pytest.mark.parametrize("broken", ["", "not base64!", "AAAA", "HISTFAAAACR42pNpmSzMwMD"])
def test_a_broken_histogram_is_named(broken: str) -> None:
    def spoil(trial: Trial) -> Trial:
        assert trial.samples is not None
        return replace(trial, samples=replace(trial.samples, histogram=broken))

    with pytest.raises(BenchError, match=r"samples\.histogram is not an HdrHistogram"):
        LatencyAtLoad(seconds=0.5).run(Altered(FakeDut(), spoil))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Throughput(seconds=0.0), "throughput: seconds is 0.0, and must be greater than 0"),
        (lambda: Throughput(duration_sum=-1.0), "duration_sum is -1.0"),
        (lambda: Throughput(width=0.0), "width is 0.0"),
        (lambda: Latency(idle=0.0), "idle is 0.0"),
        (lambda: LatencyAtLoad(load=math.inf), "load is inf"),
        (lambda: FrameLoss(steps=1), "steps is 1, and must be 2 or more"),
        (
            lambda: FrameLoss(steps=2.5),  # type: ignore[arg-type]
            "steps is 2.5, and must be a whole number",
        ),
        (lambda: BackToBack(repeats=0), "repeats is 0"),
        (lambda: BackToBack(limit_seconds=0.0), "limit_seconds is 0.0"),
        (lambda: Recovery(relief_seconds=0.0), "relief_seconds is 0.0"),
        (lambda: Reset(full_seconds=math.nan), "full_seconds is nan"),
        (lambda: ForwardingRate(flows=0), "flows is 0"),
        (lambda: TcpBulk(seconds=0.0), "seconds is 0.0"),
        (lambda: TcpBulk(connections=0), "connections is 0"),
        (lambda: RequestResponse(seconds=0.0), "request-response: seconds is 0.0"),
        (lambda: Ping(load=0.0), "load is 0.0"),
        (lambda: Ping(bulk=-1), "bulk is -1, and must be 0 or more"),
    ],
)
def test_parameters_that_make_no_sense(make: Callable[[], Method], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        make()


# --- Latency


def test_samples_that_were_stamped_too_early_are_told_of() -> None:
    def early(trial: Trial) -> Trial:
        assert trial.samples is not None
        return replace(trial, samples=replace(trial.samples, early=trial.samples.received))

    method = LatencyAtLoad(load=4_000.0, seconds=1.0)
    assert not any("stamped" in remark for remark in method.run(FakeDut()).remarks)
    (remark,) = method.run(Altered(FakeDut(), early)).remarks
    assert re.search(r"[\d,]+ of [\d,]+ samples were stamped before the last queue.*: stop the program", remark)


@pytest.mark.parametrize("delay", [12e-6, 450e-6, 3e-3])
def test_latency_of_a_fixed_delay(delay: float) -> None:
    findings = found(LatencyAtLoad(load=4_000.0, seconds=1.0), FakeDut(delay=delay))
    assert findings.values == {
        **dict.fromkeys(("p50", "p90", "p99", "p99_9", "max"), pytest.approx(delay * 1e6, rel=0.001)),
        "samples": 4_000,
    }
    assert findings.remarks == ()


def test_percentiles_of_a_queue_that_grows() -> None:
    # Offered 10 % more than it forwards, a frame waits 100 ms more for every second that has passed.
    dut = FakeDut(rate=20_000, buffer=10_000, delay=0.0)
    values = found(LatencyAtLoad(load=22_000.0, seconds=1.0), dut).values
    assert [values[name] for name in ("p50", "p90", "p99", "max")] == [about(ms * 1000) for ms in (50, 90, 99, 100)]


@pytest.mark.parametrize("rate", [5_000, 20_000])
def test_latency_at_shares_of_the_pdr(rate: float) -> None:
    findings = found(Latency(stream_seconds=1.0, idle=200.0, **QUICK), FakeDut(rate=rate, buffer=20, delay=1e-4))
    assert findings.values["pdr"] == about(rate)
    loads, medians = zip(*findings.series["median"], strict=True)
    assert loads == (200, about(rate / 10), about(rate / 2), about(rate * 0.9))
    assert medians == (about(100 + 1e6 / rate),) * 4
    assert findings.values["at_90_p99_9"] == medians[3]
    assert any("only 200 samples" in remark for remark in findings.remarks)


def test_idle_is_never_more_than_a_tenth_of_the_pdr() -> None:
    findings = found(Latency(stream_seconds=1.0, **QUICK), FakeDut(rate=1_000, buffer=5, sender_rate=5_000))
    assert [load for load, _ in findings.series["median"]] == [about(load) for load in (100, 100, 500, 900)]


def test_samples_out_of_order_twice_or_corrupted_are_remarked() -> None:
    def spoil(trial: Trial) -> Trial:
        assert trial.samples is not None
        return replace(trial, samples=replace(trial.samples, reordered=3, duplicated=4, corrupted=5, missed=6))

    remarks = found(LatencyAtLoad(seconds=2.0), Altered(FakeDut(), spoil)).remarks
    for text in ("3 of 2000 samples arrived out of order", "4 of 2000 samples arrived twice", "5 of", "no room for 6"):
        assert any(text in remark for remark in remarks)


def test_samples_are_of_every_stream_and_size() -> None:
    streams = patterns.streams_of("bidirectional", (64, 1518, 512))
    for load in (1.0, 20_000.0, 60_000.0, 1e6):
        every = patterns.sampling(load, streams, 1.0, 2)
        assert every >= max(1, round(load / 10_000))
        assert {frame % 6 for frame in range(0, 6 * every, every)} == set(range(6))


@pytest.mark.parametrize("destinations", [(1,), ()])
@pytest.mark.parametrize("seconds", [0.3, 120.0, 3600.0])
@pytest.mark.parametrize("ports", [4, 256])
@pytest.mark.parametrize("load", [1.0, 9_999.0, 10_001.0, 1e6])
def test_samples_fit_the_log(load: float, ports: int, seconds: float, destinations: tuple[int, ...]) -> None:
    every = patterns.sampling(load, (Stream(0, destinations),), seconds, ports)
    copies = 1 if destinations else ports
    assert math.ceil(round(load * seconds) / every) < CAPACITY // copies
    if load * seconds * copies < CAPACITY / 2:
        assert every == max(1, round(load / 10_000))


# --- Frame loss


@pytest.mark.parametrize("rate", [7_200, 16_000])
def test_loss_curve_of_a_token_bucket(rate: float) -> None:
    findings = found(FrameLoss(seconds=1.0), FakeDut(rate=rate, buffer=10, sender_rate=20_000))
    curve = findings.series["loss"]
    assert [load for load, _ in curve] == [2_000 * step for step in range(round(curve[0][0] / 2_000), 11)]
    for load, loss in curve:
        assert loss == pytest.approx(max(0.0, 1 - rate / load), abs=0.002)
    free = max(load for load, _ in curve if load <= rate)
    assert findings.values["loss_free"] == free
    assert curve[0][0] == free - 2_000  # two in a row, and no more
    assert findings.values["loss_at_max"] == about(1 - rate / 20_000)


@pytest.mark.parametrize("loss", [0.01, 0.2])
def test_loss_curve_of_a_fixed_loss(loss: float) -> None:
    findings = found(FrameLoss(seconds=4.0, steps=20), FakeDut(loss=loss, sender_rate=50_000))
    curve = findings.series["loss"]
    assert len(curve) == 20
    assert [ratio for _, ratio in curve] == [about(loss)] * 20
    assert "loss_free" not in findings.values
    assert "no two trials in a row without loss" in findings.remarks[0]


def test_no_loss_at_all() -> None:
    findings = found(FrameLoss(seconds=1.0), FakeDut(sender_rate=20_000))
    assert findings.values == {"max_offered": 20_000, "loss_at_max": 0, "loss_free": 20_000}
    assert findings.remarks == ("no loss even at the most the tester can offer",)


# --- Back-to-back


@pytest.mark.parametrize(("buffer", "rate"), [(150, 20_000), (90, 35_000), (10, 5_000)])
def test_longest_burst_and_buffer_time(buffer: int, rate: float) -> None:
    fastest = 50_000
    method = BackToBack(repeats=3, seconds=4.0, duration_sum=4.0, width=0.002)
    values = found(method, FakeDut(rate=rate, buffer=buffer, sender_rate=fastest)).values
    longest = buffer / (1 - rate / fastest)  # in which the queue fills
    assert values["mean"] == pytest.approx(longest, rel=0.01, abs=1)
    assert values["min"] == values["max"] == values["mean"] and values["stdev"] == 0
    assert values["implied_buffer"] == pytest.approx(1000 * longest / fastest, rel=0.01, abs=0.03)
    assert values["corrected_buffer"] == pytest.approx(1000 * buffer / fastest, rel=0.02, abs=0.03)


def test_bursts_that_differ_have_a_spread() -> None:
    dut = FakeDut(rate=10_000, buffer=10**6, sender_rate=20_000)

    def shrinking(trial: Trial) -> Trial:
        longest = 100 if dut.trials // 15 % 2 else 200
        frames = trial.offer.phases[0].frames
        return replace(trial, received=(0, longest)) if frames and frames > longest else trial

    values = found(BackToBack(repeats=8, **QUICK), Altered(dut, shrinking)).values
    assert 100 <= values["min"] < values["mean"] < values["max"] <= 200
    assert values["stdev"] > 0


@pytest.mark.parametrize("limit", [3, 10_000, 16_400])
def test_a_burst_without_end(limit: int) -> None:
    method = BackToBack(repeats=2, limit_seconds=limit / 20_000, **QUICK)
    findings = found(method, FakeDut(sender_rate=20_000))
    assert findings.values["mean"] == limit
    assert findings.values["implied_buffer"] == pytest.approx(limit / 20)
    assert "corrected_buffer" not in findings.values
    assert any(remark.startswith(f"≥ {limit:,} frames: 2 of 2") for remark in findings.remarks)


# --- Recovery


@pytest.mark.parametrize("relapse", [0.3, 0.7])
def test_recovery_time(relapse: float) -> None:
    method = Recovery(overload_seconds=1.0, relief_seconds=1.0, repeats=2, **QUICK)
    dut = FakeDut(rate=19_000, buffer=20, relapse=relapse, sender_rate=50_000)
    findings = found(method, dut)
    assert findings.values["recovery"] == findings.values["longest"] == about(relapse)
    assert findings.values["ndr"] == about(19_000)
    assert findings.remarks == ()


def test_a_queue_that_only_drains_recovers_at_once() -> None:
    method = Recovery(overload_seconds=0.5, relief_seconds=0.5, **QUICK)
    assert found(method, FakeDut(rate=19_000, buffer=20, sender_rate=50_000)).values["recovery"] == 0


def test_no_recovery_within_the_trial() -> None:
    method = Recovery(overload_seconds=0.5, relief_seconds=0.5, **QUICK)
    findings = found(method, FakeDut(rate=19_000, buffer=20, relapse=3.0, sender_rate=50_000))
    assert findings.values["recovery"] == about(0.5)
    assert "still being lost at the end" in findings.remarks[-1]


@pytest.mark.parametrize(("dut", "why"), [({}, "was not overloaded"), ({"loss": 0.05}, "no throughput to begin from")])
def test_no_recovery_time_without_an_overload(dut: dict[str, float], why: str) -> None:
    method = Recovery(overload_seconds=0.5, relief_seconds=0.5, **QUICK)
    findings = found(method, FakeDut(sender_rate=20_000, **dut))  # type: ignore[arg-type]
    assert "recovery" not in findings.values
    assert why in findings.remarks[-1]


# --- Reset


@pytest.mark.parametrize(("graceful", "killed"), [(0.1, 0.3), (0.45, 0.02)])
def test_outage_of_a_reset(graceful: float, killed: float) -> None:
    dut = FakeDut(rate=19_000, restart_seconds=graceful, killed_seconds=killed, sender_rate=50_000)
    findings = found(Reset(seconds=1.5, repeats=2), dut)
    assert findings.values == {
        "graceful_loss": about(graceful),
        "graceful_gap": about(graceful),
        "killed_loss": about(killed),
        "killed_gap": about(killed),
    }
    assert findings.remarks == ()


def test_a_reset_that_outlasts_the_trial() -> None:
    findings = found(Reset(seconds=1.0), FakeDut(killed_seconds=5.0, sender_rate=20_000))
    assert findings.values["killed_loss"] == about(0.5)
    assert "killed_gap" not in findings.values
    assert "the outage is 0.5 s or more" in findings.remarks[-1]


def test_loss_without_a_reset_is_remarked() -> None:
    findings = found(Reset(seconds=1.0), FakeDut(loss=0.1, sender_rate=20_000))
    assert "10.00% of the frames are lost without any reset" in findings.remarks[0]


# --- One trial


@pytest.mark.parametrize("rate", [4_013, 15_013])  # no ratio in step with the sizes
@pytest.mark.parametrize("sizes", [(64,), IMIX])
def test_forwarding_rate(rate: float, sizes: tuple[int, ...]) -> None:
    method = ForwardingRate(sizes, sources=50, targets=20)
    findings = found(method, FakeDut(3, rate=rate, buffer=10, sender_rate=20_000))
    assert findings.values == {
        "frmol": about(rate),
        "frmol_gbps": about(patterns.gigabits(rate, sizes)),
        "loss": about(1 - rate / 20_000),
        "max_offered": about(20_000),
    }


def test_a_frame_that_was_flooded_elsewhere_counts_once() -> None:
    # No room in the FDB: everything is flooded to the third port as well.
    recorder = Recorder(FakeDut(3, capacity=8, sender_rate=20_000))
    values = found(ForwardingRate(targets=1000), recorder).values
    assert recorder.trials[0].strayed > 19_000
    assert values["frmol"] == about(20_000)
    assert values["loss"] == 0


def test_a_forwarding_rate_is_that_of_the_traffic_asked_for() -> None:
    recorder = Recorder(FakeDut())
    ForwardingRate((64, 1518), "bidirectional", "udp", flows=4, sources=3, targets=2, seconds=0.1).run(recorder)
    stream = Stream(0, (1,), (64, 1518), "udp", flows=4, sources=3, targets=2)
    assert recorder.trials[0].offer == steady((stream, replace(stream, source=1, destinations=(0,))), 0.1)


def test_a_forwarding_rate_of_a_mesh() -> None:
    method = ForwardingRate(pattern="mesh", seconds=0.5)
    assert (method.ports, method.subject) == (4, "64 B, mesh")
    values = found(method, FakeDut(4, rate=12_000, sender_rate=20_000)).values
    assert values["frmol"] == about(12_000) and values["loss"] == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("rate", [1e9, 7.5e9])
def test_tcp_bulk(rate: float) -> None:
    assert found(TcpBulk(), FakeDut(tcp_rate=rate)).values == {"throughput": about(rate / 1e9)}


def test_a_bulk_transfer_is_the_one_asked_for() -> None:
    recorder = Recorder(FakeDut())
    method = TcpBulk(0.5, 8, pinned=False)
    method.run(recorder)
    assert recorder.trials[0].offer == steady(Stream(0, (1,), kind="tcp", flows=8, pinned=False), 0.5)
    assert method.subject == "8 connections, receiver placed by the scheduler"


@pytest.mark.parametrize("delay", [20e-6, 1e-3])
def test_requests_are_answered_as_fast_as_the_path_lets_them(delay: float) -> None:
    for connect, ways in ((False, 2), (True, 4)):
        findings = found(RequestResponse(connect, seconds=0.5), FakeDut(delay=delay))
        assert findings.values["transactions"] == about(1 / (ways * delay))
        assert findings.values["p50"] == findings.values["p99"] == about(ways * delay * 1e6)


def test_pings_with_their_losses() -> None:
    findings = found(Ping(2000.0, seconds=1.0), FakeDut(delay=50e-6, loss=0.05))
    assert findings.values["p50"] == about(100.0)
    assert findings.values["lost"] == about(0.05)
    assert findings.values["samples"] == about(1900)
    assert "beside_gbps" not in findings.values


def test_pings_beside_a_bulk_transfer() -> None:
    recorder = Recorder(FakeDut(tcp_rate=4e9))
    assert Ping(bulk=2, seconds=0.5).run(recorder).values["beside_gbps"] == about(4.0)
    streams = Stream(0, (1,), kind="ping"), Stream(0, (1,), kind="tcp", flows=2)
    assert recorder.trials[0].offer == steady(streams, 0.5, 1000.0)


@pytest.mark.parametrize("method", [RequestResponse(seconds=0.5), Ping(seconds=0.5)])
def test_no_answer_is_no_result(method: Method) -> None:
    def unanswered(trial: Trial) -> Trial:
        assert trial.samples is not None
        return replace(trial, samples=replace(trial.samples, received=0))

    with pytest.raises(BenchError, match="was answered"):
        method.run(Altered(FakeDut(), unanswered))


@pytest.mark.parametrize(
    ("method", "subject"),
    [
        (Throughput(), "64 B"),
        (Throughput(IMIX, "bidirectional"), "IMIX, bidirectional"),
        (LatencyAtLoad(), "64 B, 1,000 frames/s"),
        (ForwardingRate((1518,), kind="udp", flows=8, targets=1000), "1518 B, UDP, 8 flows, 1,000 targets"),
        (ForwardingRate((64, 1518)), "64/1518 B"),
    ],
)
def test_subjects(method: Method, subject: str) -> None:
    assert method.subject == subject
