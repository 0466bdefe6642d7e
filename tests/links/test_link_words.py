"""Links in words: text, dictionaries, changes, and what they come to."""

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbridge import ConfigError, Link, gilbert
from fastbridge.links.presets import PRESETS
from fastbridge.links.stages import POOL_BYTES, Stages
from fastbridge.toml_text import Document, write

WORDS = [
    "delay", "jitter", "distribution", "loss", "loss_model", "lose", "rate", "limit", "duplicate", "corrupt",
    "reorder", "overhead", "trace", "cut",
]  # fmt: skip


def shares():
    return st.one_of(st.floats(0, 0.999), st.integers(0, 100).map("{}%".format), st.just("0.05%"))


def times(most):
    """Milliseconds, in several spellings."""
    return st.integers(0, most).flatmap(
        lambda ms: st.sampled_from([f"{ms}ms", f"{ms * 1000}us", f"{ms}msec", ms / 1000, f"{ms / 1000}s"])
    )


@st.composite
def sides(draw):
    """Words of one direction that go together."""
    words = {"delay": draw(st.just("500ms")), "jitter": draw(times(500))}
    if draw(st.booleans()):
        words["rate"] = draw(st.one_of(st.integers(1, 10**9), st.sampled_from(["1mbit", "1.5gbit", "64kbps"])))
        words["limit"] = draw(st.sampled_from([None, "100kB", "50ms", "100p", "1b"]))
        words["overhead"] = draw(st.integers(0, 65535))
    loss = draw(st.sampled_from(["loss", "loss_model", ""]))
    if loss:
        words[loss] = draw(shares()) if loss == "loss" else draw(st.sampled_from([gilbert("1%"), "gilbert(2%,30%,9%)"]))
    words["lose"] = draw(st.sampled_from([None, "every 10", "frames 9,3,7"]))
    words["reorder"] = draw(shares())
    words |= {word: draw(shares()) for word in draw(st.sets(st.sampled_from(["duplicate", "corrupt"])))}
    words["cut"] = draw(st.booleans())
    return words


@st.composite
def links(draw):
    return Link(
        **draw(sides()),
        seed=draw(st.one_of(st.none(), st.integers(0, (1 << 64) - 1))),
        to_pod=draw(st.one_of(st.none(), sides().map(lambda words: {"loss": 0, "loss_model": None, **words}))),
    )


def test_a_word_that_there_is_not_has_the_same_hint_in_python():
    with pytest.raises(ConfigError) as text:
        Link.parse("bw=10")
    with pytest.raises(ConfigError) as python:
        Link(bw=10)
    assert str(python.value) == str(text.value) and "rate=10mbit" in str(text.value)


# -- there and back --------------------------------------------------------------------------------


@given(links())
def test_a_link_is_what_its_text_says(link):
    assert Link.parse(str(link)) == link
    assert str(Link.parse(str(link))) == str(link)
    assert hash(Link.parse(str(link))) == hash(link)
    assert eval(repr(link)) == link


@given(links())
def test_a_link_is_what_its_words_say(link):
    assert Link.of(link.as_words()) == link
    assert Link.of(json.loads(json.dumps(link.as_words()))) == link
    assert Link.of(Document(write(link.as_words()), "a").table) == link


@given(links())
def test_the_same_link_comes_to_the_same_stages(link):
    for direction in ("to_pod", "from_pod"):
        assert Link.parse(str(link)).stages(direction, "pod1") == link.stages(direction, "pod1")


def test_links_can_be_copied():
    link = Link.parse("dsl,loss=1%")
    assert pickle.loads(pickle.dumps(link)) == copy.deepcopy(link) == link


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("delay=0.02s, loss=0", "delay=20ms"),
        ("seed=7, Loss=1.50%".lower(), "loss=1.5%,seed=7"),
        ("rate=1000kbit,limit=2048b", "rate=1mbit,limit=2kB"),
        ("lose=frames 7, 3,delay=1ms", "delay=1ms,lose=frames 3,7"),
        ("loss_model=gilbert(1%, 30%),seed=1,delay=1ms", "delay=1ms,loss_model=gilbert(1%,30%),seed=1"),
        ("loss-model=gilbert(1%),seed=1", "loss_model=gilbert(1%,99%),seed=1"),
        ("to_pod.rate=1mbit,delay=20ms", "delay=20ms,to_pod.rate=1mbit"),
        ("from-pod.cut=yes", "from_pod.cut=true"),
        ("delay=20ms,to_pod.delay=20ms", "delay=20ms"),
        ("delay=20ms,to_pod.delay=0", "delay=20ms,to_pod.delay=0"),
        ("limit=none,rate=1mbit", "rate=1mbit"),
        ("delay=0", "delay=0"),
        ("4g", "delay=35ms,rate=12mbit"),
        ("4G,rate=1mbit", "delay=35ms,rate=1mbit"),
        ("dsl,rate=1mbit", "delay=25ms,rate=1mbit"),
        ("dsl,to_pod.rate=1mbit", "delay=25ms,to_pod.rate=1mbit,from_pod.rate=384kbit"),
    ],
)
def test_canonical_text(text, canonical):
    assert str(Link.parse(text)) == canonical


def test_numbers_are_in_base_units():
    assert Link(delay=0.02, loss=0.01, rate=1_000_000, seed=1) == Link.parse("delay=20ms,loss=1%,rate=1mbit,seed=1")


# -- change and set --------------------------------------------------------------------------------


def test_a_change_keeps_the_other_words():
    link = Link.parse("delay=20ms,loss=1%,rate=10mbit")
    changed = link.change("loss=5%")
    assert (changed.loss, changed.delay, changed.rate, changed.seed) == ("5%", "20ms", "10mbit", link.seed)
    assert link.change(loss="5%") == changed
    assert link.loss == "1%"


def test_new_words_have_defaults_for_all_others():
    assert Link.parse("loss=5%,seed=1").as_words() == {"loss": "5%", "seed": 1}


@given(links(), st.sampled_from(["duplicate", "corrupt"]), shares())
def test_a_change_is_the_word_and_nothing_else(link, word, value):
    changed = link.change(**{word: value})
    for other in WORDS:
        for direction in ("to_pod", "from_pod"):
            before, after = (each._words_of(direction)[other] for each in (link, changed))
            assert after == (getattr(changed, word) if other == word else before)


def test_a_change_to_zero_is_zero():
    link = Link.parse("delay=20ms,jitter=5ms,loss=1%,rate=10mbit,duplicate=1%,corrupt=1%,reorder=1%,limit=50ms")
    gone = link.change("delay=0,jitter=0,loss=0,rate=0,duplicate=0,corrupt=0,reorder=0,limit=none")
    assert gone.as_words() == {"seed": link.seed}
    assert gone.stages("to_pod") is gone.stages("from_pod") is None


def test_a_change_of_both_directions_takes_the_place_of_those_of_each():
    assert str(Link.parse("dsl").change("rate=5mbit")) == "delay=25ms,rate=5mbit"
    assert str(Link.parse("dsl").change("to_pod.rate=5mbit").to_pod) == "{'rate': '5mbit'}"
    assert str(Link.parse("rate=1mbit,to_pod.rate=2mbit").change(to_pod=None)) == "rate=1mbit"


def test_a_change_that_makes_no_sense_changes_nothing():
    link = Link.parse("rate=10mbit,limit=50ms")
    with pytest.raises(ConfigError, match="limit 50ms without a rate"):
        link.change("rate=0")
    assert str(link) == "rate=10mbit,limit=50ms"


# -- what it comes to ------------------------------------------------------------------------------


def test_no_word_and_zeros_do_nothing():
    zeros = Link(delay=0, jitter="0ms", loss="0%", rate=0, duplicate=0, corrupt=0.0, reorder="0", overhead=0, cut=False)
    assert zeros == Link() == Link.parse("delay=0")
    assert Link().stages("to_pod", "pod1") is Link().stages("from_pod", "pod1") is None


def test_each_word_has_its_number():
    link = Link(
        delay="20ms", jitter="5ms", distribution="normal", loss_model=gilbert("1%", "30%", "90%", "2%"),
        lose="frames 3,7", rate="10mbit", limit="100kB", duplicate="3%", corrupt="4%", reorder="5%", overhead=24,
        cut=True, seed=7,
    )  # fmt: skip
    stages = link.stages("to_pod", "pod1")
    assert stages is not None
    assert stages == Stages(
        seed=stages.seed, cut=True, bursts=(0.01, 0.3, 0.02, 0.9), lose_frames=(3, 7), duplicate=0.03, corrupt=0.04,
        reorder=0.05, rate=10_000_000, overhead=24, limit_bytes=102_400, delay_ns=20_000_000, jitter_ns=5_000_000,
        table=stages.table,
    )  # fmt: skip
    assert len(stages.table) == 4097


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("loss=100%,seed=1", {"loss": 1.0}),
        ("lose=every 10", {"lose_every": 10}),
        ("rate=1mbit,limit=50ms", {"rate": 10**6, "limit_ns": 50 * 10**6}),
        ("rate=1mbit,limit=100p", {"rate": 10**6, "limit_frames": 100}),
        ("cut=true", {"cut": True}),
        ("delay=5ms", {"delay_ns": 5 * 10**6}),
    ],
)
def test_stages_of(text, numbers):
    stages = Link.parse(text).stages("to_pod")
    assert stages is not None
    assert stages == Stages(seed=stages.seed, **numbers)


def test_frames_overtake_only_if_asked():
    stages = [Link.parse(f"delay=9ms,jitter=5ms{more}").stages("to_pod") for more in ("", ",reorder=jitter")]
    assert [(each.keeps_order, each.reorder) for each in stages] == [(True, 0), (False, 0)]


def test_a_direction_may_do_nothing():
    link = Link(to_pod={"delay": "20ms"})
    assert link.stages("to_pod").delay_ns == 20_000_000
    assert link.stages("from_pod") is None


def test_traces(tmp_path, monkeypatch):
    (tmp_path / "cell").write_text("1\n1\n2\n2\n5\n5\n")
    monkeypatch.chdir(tmp_path)
    link = Link.parse("trace=cell,delay=20ms")
    assert link.trace == str(tmp_path / "cell")
    stages = link.stages("to_pod")
    assert stages.steps == ((0, 24_064_000, -1), (2_000_000, 0, -1), (4_000_000, 24_064_000, -1))
    assert stages.period_ns == 5_000_000
    assert stages.limit_bytes == round(6 * 1504 * 8000 / 5) * 50 // 8000
    monkeypatch.chdir("/")
    assert Link.parse(str(link)) == link


# -- seeds -----------------------------------------------------------------------------------------


def test_a_seed_is_drawn_once_if_anything_is_left_to_chance():
    assert Link(delay="20ms").seed is None
    link = Link(loss="1%")
    assert link.seed is not None
    assert f"seed={link.seed}" in str(link)
    assert Link(loss="1%") != link
    assert Link(delay="20ms").change("loss=1%").seed is not None
    assert link.change("seed=none").seed != link.seed


def test_ports_and_directions_have_seeds_of_their_own():
    link = Link(loss="1%", seed=7)
    seeds = {link.stages(direction, of).seed for direction in ("to_pod", "from_pod") for of in ("pod1", "pod2")}
    assert len(seeds) == 4
    assert Link(loss="1%", seed=7).stages("to_pod", "pod1").seed in seeds
    assert Link(loss="1%", seed=8).stages("to_pod", "pod1").seed not in seeds


def test_links_without_chance_are_alike_for_all_ports():
    assert Link(delay="20ms").stages("to_pod", "pod1") == Link(delay="20ms").stages("to_pod", "pod2")


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("rate=1mbit", 32 * 1514),  # 388 ms: TCP needs a few frames to begin
        ("rate=100mbit", 625_000),  # 50 ms
        ("rate=1gbit", 6_250_000),
        ("rate=1gbit,delay=150ms", 37_500_000),  # a round trip of 300 ms
        ("rate=1gbit,delay=150ms,from_pod.delay=0", 18_750_000),
    ],
)
def test_a_rate_has_a_queue_that_tcp_can_fill_it_with(text, limit):
    assert Link.parse(text).stages("to_pod").limit_bytes == limit


@pytest.mark.parametrize("text", ["rate=100gbit", "rate=10gbit,delay=500ms", "rate=1mbit,limit=300MB",
                                  "rate=1mbit,limit=200000p", "rate=100gbit,limit=30ms"])  # fmt: skip
def test_a_queue_fits_into_the_pool(text):
    with pytest.raises(ConfigError, match=f"MiB; frames in flight have {POOL_BYTES >> 20} MiB"):
        Link.parse(text)
    assert Link.parse(text.partition(",limit")[0] + ",limit=1ms").limit == "1ms"


# -- presets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_links_with_a_source(name):
    link = Link.parse(name)
    assert link == Link.of(PRESETS[name].words)
    assert PRESETS[name].source
    assert link.stages("to_pod").delay_ns
    assert link.stages("from_pod").rate
    assert link.seed is None


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "delay=20ms,loss=1%"),
        ("   ", "delay=20ms,loss=1%"),
        ("5g", "there is no preset '5g' (is it 4g?); there are: lan, wifi, 4g, 3g, dsl, satellite"),
        ("satelite", "is it satellite?"),
        ("loss=2%,4g", "a preset comes first"),
        ("delay", "words with values"),
        ("delay 20ms 5ms distribution normal", "delay=20ms,jitter=5ms"),
        ("loss=1% 25%", "no correlations"),
        ("delay=20ms 5ms", "one value"),
        ("delay=", "delay=none"),
        ("delay=20ms,delay=30ms", "delay is there twice"),
        ("delay=20ms\nloss=1%", "one line"),
        ("dealy=20ms", "is it delay?"),
        ("bw=10", "rate=10mbit"),
        ("max_queue_size=100", "limit=100p"),
        ("latency=50ms", "limit=50ms"),
        ("corruption=1%", "corrupt=1%"),
        ("gemodel=1%", "gilbert"),
        ("gap=5", "every 10"),
        ("slot=1ms", "trace"),
        ("down=true", "cut=true"),
        ("pod.rate=1mbit", "to_pod or from_pod"),
        ("to_pod=1mbit", "to_pod.rate=1mbit"),
        ("to_pod.seed=7", "a link has no to_pod.seed"),
        ("to_pod.bw=7", "rate=10mbit"),
        ("to_pod.rate=fast", "to_pod.rate must be"),
        ("seed=-1", "0 … 18446744073709551615"),
        ("cut=maybe", "true or false"),
        ("overhead=1.5,rate=1mbit", "0 … 65535"),
        ("jitter=5ms", "jitter 5ms is more than delay 0"),
        ("delay=20ms,jitter=5ms,to_pod.delay=1ms", "jitter 5ms is more than to_pod.delay 1ms"),
        ("distribution=normal,delay=20ms", "distribution normal without jitter"),
        ("distribution=gauss,jitter=1ms,delay=2ms", "there are uniform, normal, pareto"),
        ("distribution=paretonormal,jitter=1ms,delay=2ms", "/usr/lib/tc/paretonormal.dist"),
        ("distribution=/none/a.dist,jitter=1ms,delay=2ms", "/none/a.dist cannot be read"),
        ("reorder=10%", "reorder 10% without delay"),
        ("reorder=jitter,delay=20ms", "reorder jitter without jitter"),
        ("loss=1%,loss_model=gilbert(1%)", "loss 1% and loss_model gilbert(1%,99%)"),
        ("limit=100kB", "limit 100kB without a rate"),
        ("overhead=24", "overhead 24 without a rate"),
        ("rate=1mbit,to_pod.rate=0,to_pod.limit=50ms", "to_pod.limit 50ms without a rate"),
        ("trace=/none", "/none cannot be read"),
        ("trace=a,b", "has a comma"),
        ("trace=/dev/null", "is not a file"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(text, says):
    with pytest.raises(ConfigError, match=r"\A[^\n]*\Z") as error:
        Link.parse(text)
    assert says in str(error.value)


def test_a_change_of_other_words_reads_no_file_again(tmp_path):
    trace, table = tmp_path / "cell", tmp_path / "rtts"
    trace.write_text("1\n")
    table.write_text("1 2 3\n")
    link = Link.parse(f"trace={trace},delay=20ms,jitter=1ms,seed=1,to_pod.distribution={table}")
    trace.write_text("5\n")
    table.unlink()
    changed = link.change("delay=30ms")
    assert changed.stages("to_pod").steps == link.stages("to_pod").steps == ((0, 12_032_000, -1),)
    assert changed.stages("to_pod").table == link.stages("to_pod").table
    assert json.loads(json.dumps(changed.as_words()))["trace"] == str(trace)
    assert changed == pickle.loads(pickle.dumps(changed)) == Link.of(changed.as_words())
    assert changed.change(f"trace={trace}").stages("to_pod").steps != link.stages("to_pod").steps
    with pytest.raises(ConfigError, match="rtts"):
        link.change(f"distribution={table}")


def test_a_trace_and_words_do_not_contradict(tmp_path):
    (tmp_path / "both").write_text("t,rate,delay\n0,1mbit,20ms\n")
    for word, value in [("rate", "1mbit"), ("delay", "20ms")]:
        with pytest.raises(ConfigError, match=f"{word} {value} and trace .*give one of them"):
            Link(trace=str(tmp_path / "both"), **{word: value})
    assert Link(trace=str(tmp_path / "both"), jitter="5ms", limit="50ms").stages("to_pod").limit_ns


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"to_pod": "rate=1mbit"}, "to_pod must be words"),
        ({"to_pod": {"bw": 1}}, "a link has no to_pod.bw"),
        ({"a\nb": 1}, r"a link has no 'a\\nb'"),
        ({"loss": 5}, "loss=5%"),
        ({"loss": True}, "loss must be"),
        ({"delay": [1]}, "delay must be"),
        ({"delay": {"a": 1}}, "delay must be"),
        ({"trace": 7}, "trace must be the path"),
        ({"distribution": 7}, "distribution must be the path"),
        ({"distribution": []}, "distribution must be the path"),
        ({"cut": []}, "cut must be"),
        ({"seed": 1.5}, "seed must be"),
        ({"seed": []}, "seed must be"),
        ({"lose": 10}, "lose must be"),
    ],
)
def test_words_of_other_types_are_refused(words, says):
    with pytest.raises(ConfigError, match=says):
        Link.of(words)


@given(st.text(max_size=40))
def test_any_text_is_a_link_or_an_error_of_one_line(text):
    try:
        assert Link.parse(text) == Link.parse(str(Link.parse(text)))
    except ConfigError as error:
        assert "\n" not in str(error)
        assert str(error).isprintable()


@given(
    st.lists(st.tuples(st.sampled_from(WORDS), st.text(alphabet="0159.%kmgbitspern ,()=-_/", max_size=12)), max_size=4)
)
def test_any_value_is_a_link_or_an_error(pairs):
    try:
        link = Link.parse(",".join(f"{word}={value}" for word, value in pairs))
    except ConfigError as error:
        assert str(error).isprintable()
    else:
        assert Link.parse(str(link)) == link
        link.stages("to_pod")
