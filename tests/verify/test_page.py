"""The page: everything the document says, nothing from outside, readable in both schemes."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snnpipe.errors import CouldNotRunError
from snnpipe.export.quantise import quantise
from snnpipe.network.contract import Contract
from snnpipe.network.grid import snap
from snnpipe.network.layers import Conv, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import LIF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record, Trace, Witness, predictions
from snnpipe.verify import page
from snnpipe.verify.chain import Opened, Request, verify
from snnpipe.verify.page import page_missing, remove_report, render, write_report
from snnpipe.verify.report import report
from snnpipe.verify.statistics import Accuracy

pytest.importorskip("jinja2", reason="the page needs jinja2")
pytest.importorskip("matplotlib", reason="the page needs matplotlib")

HOSTILE = "<script>alert('x')</script><img src=https://example.org/a.png onerror=y>"
SAMPLES = 20


class Runs:
    """A runtime that is the reference executor on the network it is given."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def run(self, x: np.ndarray, steps: int, record: Record | None = None) -> Trace:
        return simulate(self.network, x, steps, record)


def folded_network() -> Network:
    rng = np.random.default_rng(3)
    lif = LIF(np.array(0.25, np.float32), np.array(1.0, np.float32))

    def weights(scale: float, *shape: int) -> np.ndarray:
        return rng.normal(0.1, scale, shape).astype(np.float32)

    conv = Conv("conv", weights(0.8, 4, 1, 3, 3), weights(0.3, 4), (2, 1), (1, 0))
    hidden = Dense("fc1", weights(0.2, 30, 96), weights(0.2, 30))
    layers = (
        Layer("lif1", lif, (4, 4, 6), (Synapse("input", (conv,)),)),
        Layer("lif2", lif, (30,), (Synapse("lif1", (Flatten("flat"), hidden)),)),
        Layer("readout", Sum(), (5,), (Synapse("lif2", (Dense("fc2", weights(0.4, 5, 30)),)),)),
    )
    contract = Contract(steps=3, input_scale=1 / 256, input_levels=255)
    return Network("input", (1, 8, 8), layers, "readout", contract)


def with_fault(network: Network) -> Network:
    """The weights of one neuron of lif2 moved by a quarter."""
    layer = network.layer("lif2")
    flat, dense = layer.synapses[0].operations
    weight = dense.weight.copy()
    weight[3] -= 0.25
    synapse = replace(layer.synapses[0], operations=(flat, replace(dense, weight=weight)))
    wrong = replace(layer, synapses=(synapse,))
    return replace(network, layers=(network.layers[0], wrong, *network.layers[2:]))


@pytest.fixture(scope="module")
def request_() -> Request:
    folded = folded_network()
    network = snap(folded)
    x = np.random.default_rng(4).integers(0, 256, (SAMPLES, 1, 8, 8)).astype(np.uint8)
    trained = simulate(folded, folded.contract.frames(x[:6]), 3, Record())
    labels = predictions(simulate(network, network.contract.frames(x), 3).outputs)[-1]
    labels = np.where(np.arange(SAMPLES) % 7 == 0, (labels + 1) % 5, labels)
    witness = Witness(x[:6], labels[:6], np.arange(6), trained.outputs, trained.spikes)
    integer, _ = quantise(network)
    runtimes = {
        "engine": Opened(Runs(network)),
        "emulator": Opened(Runs(integer), quantised=True, note="no silicon"),
    }
    return Request(network, x, labels, runtimes, folded, integer, witness, Accuracy(17, 20))


@pytest.fixture(scope="module")
def documents(request_: Request) -> dict[str, dict[str, Any]]:
    absent = CouldNotRunError("E_MISSING", "runtime 'onnx' needs onnxruntime")
    more = {
        "PASSED": {},
        "FAILED": {"torch": Opened(Runs(with_fault(request_.network)))},
        "COULD_NOT_RUN": {"onnx": Opened(absent)},
    }
    facts = {"data": "made", "versions": {"numpy": "2"}}
    found = {}
    for verdict, runtimes in more.items():
        asked = replace(request_, runtimes={**request_.runtimes, **runtimes})
        found[verdict] = json.loads(json.dumps(report(verify(asked), "made", facts)))
    return found


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not match."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.styles = ""
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th", "dt", "dd", "p", "br", "caption"):
            self.words.append(" ")
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "style":
            self.styles += data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def attributes(self) -> Iterator[tuple[str, str, str]]:
        for tag, attributes in self.tags:
            for name, value in attributes.items():
                yield tag, name, value or ""


@pytest.mark.parametrize("verdict", ["PASSED", "FAILED", "COULD_NOT_RUN"])
def test_says_the_verdict_every_arrow_and_every_layer(
    documents: dict[str, dict[str, Any]], verdict: str
) -> None:
    document = documents[verdict]
    assert document["verdict"] == verdict
    shown = Page(render(document))
    assert [tag for tag, _ in shown.tags].count("h1") == 1
    assert verdict.replace("_", " ") in shown.text
    assert document["sentence"] in shown.text
    assert document["meaning"] in shown.text
    for arrow in document["chain"]:
        assert f"{arrow['from']} → {arrow['to']}" in shown.text
        assert arrow["sentence"] in shown.text
    for layer in document["network"]["layers"]:
        assert layer["layer"] in shown.text


def test_numbers_are_those_of_the_document(documents: dict[str, dict[str, Any]]) -> None:
    document = documents["PASSED"]
    text = Page(render(document)).text.replace("\xa0", " ")
    for row in document["by_steps"]:
        share = row["accuracy"]
        assert f"{100 * share['share']:.2f}" in text
        assert f"{100 * share['low']:.2f}–{100 * share['high']:.2f}" in text
    folded = next(arrow for arrow in document["chain"] if arrow["to"] == "snapped")
    decisions = sum(layer["decisions"] for layer in folded["differences"]["layers"])
    assert decisions == SAMPLES * 3 * (96 + 30)
    assert f"of {decisions:,}" in text
    for layer in document["certificate"]:
        assert f"{layer['bits']:.2f}" in text
    chip = document["by_steps"][-1]["energy"]["loihi1"]
    assert f"{chip['terms'][0]['count']:,}" in text
    for source in chip["terms"][0]["prices"][0]["sources"]:
        assert source in text
    for note in (*chip["notes"], *chip["assumptions"]):
        assert note in text
    for term in chip["host"]:
        assert term["what"] in text
    assert "Loihi" in text
    assert "versions: numpy" in text


def test_the_first_wrong_value_has_a_box(documents: dict[str, dict[str, Any]]) -> None:
    shown = Page(render(documents["FAILED"]))
    arrow = next(a for a in documents["FAILED"]["chain"] if a["to"] == "torch")
    first = arrow["differences"]["first"]
    assert first["layer"] == "lif2"
    assert f"First wrong {first['kind']}: snapped → torch" in shown.text
    assert f"{first['found']:.9g}" in shown.text
    assert "not equal" in shown.text
    assert "First wrong" not in Page(render(documents["PASSED"])).text


def test_a_failed_arrow_never_reads_as_proven(documents: dict[str, dict[str, Any]]) -> None:
    document = copy.deepcopy(documents["FAILED"])
    document["chain"] = [arrow for arrow in document["chain"] if arrow["to"] == "torch"]
    assert document["chain"][0]["strength"] == "proven"
    assert "equality proven" not in Page(render(document)).text


def hostile(document: dict[str, Any]) -> dict[str, Any]:
    """Every text that comes from a file or from a runtime replaced by markup."""
    text = json.dumps(document)
    for word in ("lif1", "lif2", "readout", "engine", "made", "no silicon"):
        text = text.replace(json.dumps(word)[1:-1], json.dumps(HOSTILE)[1:-1])
    found: dict[str, Any] = json.loads(text)
    found["facts"] = {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}
    for row in found["by_steps"]:
        for energy in row["energy"].values():
            energy["title"] = HOSTILE
            energy["notes"] = [HOSTILE]
            energy["terms"][0]["prices"][0]["sources"] = [HOSTILE]
    found["network"]["graph_sha256"] = HOSTILE
    return found


def check_nothing_from_outside(shown: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in shown.tags
    }
    ids = [value for _, name, value in shown.attributes() if name == "id"]
    assert len(ids) == len(set(ids))
    for _, name, value in shown.attributes():
        assert not name.startswith("on")
        assert name not in ("src", "srcset", "action", "data", "xlink:href")
        if name == "href":
            assert value[0] == "#"
            assert value[1:] in ids
        if name in ("style", "clip-path", "fill", "stroke"):
            assert set(re.findall(r"url\((.)", value)) <= {"#"}
    assert "@import" not in shown.styles
    assert "url(" not in shown.styles
    policy = [a for tag, a in shown.tags if tag == "meta" and "http-equiv" in a]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'"


@pytest.mark.parametrize("verdict", ["PASSED", "FAILED", "COULD_NOT_RUN"])
def test_hostile_texts_stay_texts_and_nothing_is_loaded(
    documents: dict[str, dict[str, Any]], verdict: str
) -> None:
    check_nothing_from_outside(Page(render(documents[verdict])))
    shown = Page(render(hostile(documents[verdict])))
    check_nothing_from_outside(shown)
    assert HOSTILE in shown.text


def test_the_same_document_gives_the_same_bytes(
    documents: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    document = documents["FAILED"]
    here, there = tmp_path / "here", tmp_path / "there"
    assert write_report(document, here) == [here / "report.json", here / "report.html"]
    code = (
        "import json, sys; from pathlib import Path; from snnpipe.verify.page import write_report;"
        "write_report(json.loads(Path(sys.argv[1]).read_text('utf-8')), Path(sys.argv[2]))"
    )
    paths = os.pathsep.join(sys.path)
    subprocess.run(
        [sys.executable, "-c", code, str(here / "report.json"), str(there)],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "11", "PYTHONPATH": paths},
    )
    for name in ("report.json", "report.html"):
        assert (here / name).read_bytes() == (there / name).read_bytes()
    other = copy.deepcopy(document)
    other["samples"] += 1
    assert render(other) != render(document)


def test_json_keeps_the_order_and_ends_with_a_line(
    documents: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    document = documents["PASSED"]
    write_report(document, tmp_path)
    text = (tmp_path / "report.json").read_text("utf-8")
    assert list(json.loads(text)) == list(document)
    assert json.loads(text) == json.loads(json.dumps(document))
    assert text.endswith("}\n")
    assert text.startswith('{\n  "schema"')


def test_what_json_cannot_hold_becomes_null(
    documents: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    document = copy.deepcopy(documents["FAILED"])
    document["certificate"][0] |= {"bits": float("inf"), "problem": "a sum needs 25.10 bits"}
    arrow = next(arrow for arrow in document["chain"] if arrow["to"] == "torch")
    first = arrow["differences"]["first"]
    first["found"] = float("nan")
    document["facts"] = {"name": "\ud800", "pair": (1, 2.5)}
    write_report(document, tmp_path)
    plain = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert plain["certificate"][0]["bits"] is None
    assert plain["facts"] == {"name": "?", "pair": [1, 2.5]}
    text = Page((tmp_path / "report.html").read_text("utf-8")).text
    assert "a sum needs 25.10 bits" in text
    assert f"{first['kind']} found not finite" in text


def test_parts_may_be_absent(request_: Request) -> None:
    bare = Request(
        request_.folded or request_.network,
        request_.x,
        request_.labels,
        {"engine": Opened(Runs(request_.folded or request_.network))},
    )
    document = report(verify(bare), "bare.nir")
    assert document["integer"] is None
    assert document["certificate"] == []
    shown = Page(render(document))
    check_nothing_from_outside(shown)
    assert "network → engine" in shown.text
    assert "Certificate" not in shown.text
    assert "certified by replay" in shown.text
    empty = {**document, "chain": [], "by_steps": [], "rates": [], "facts": {}}
    assert "Energy" not in Page(render(empty)).text.replace(document["meaning"], "")


@pytest.mark.parametrize("wrong", [False, True])
def test_a_replayed_run_shows_its_three_counts_in_every_layer(
    request_: Request, wrong: bool
) -> None:
    folded = request_.folded
    assert folded is not None
    runtimes = {"engine": Opened(Runs(with_fault(folded) if wrong else folded))}
    asked = Request(folded, request_.x, request_.labels, runtimes, folded)
    document = json.loads(json.dumps(report(verify(asked), "made")))
    arrow = document["chain"][-1]
    assert (arrow["from"], arrow["strength"]) == ("network", "certified by replay")
    assert "a comparison >= in place of > cannot be told apart" in document["meaning"]
    text = Page(render(document)).text
    assert document["meaning"] in text
    for layer in arrow["replay"]:
        assert layer["certain"] + layer["within_rounding"] + layer["wrong"] == layer["judged"]
        assert f"{layer['wrong']:,} wrong of {layer['judged']:,}" in text
        assert f"{layer['certain']:,} certain, {layer['within_rounding']:,} within" in text
    apart = sum(layer["changed"] for layer in arrow["differences"]["layers"])
    assert f"{apart:,} not the reference’s" in text
    assert (document["verdict"] == "FAILED") is wrong
    assert ("wrong by replay" in text) is wrong
    assert ("what rounding can do ±" in text) is wrong
    if wrong:
        assert [layer["layer"] for layer in arrow["replay"] if layer["wrong"]] == ["lif2"]
        assert "First wrong spike: network → engine" in text
    else:
        assert "made: certified by replay on engine" in text


def test_the_meaning_speaks_of_replay_only_where_there_was_one(
    documents: dict[str, dict[str, Any]],
) -> None:
    assert "replay" not in documents["PASSED"]["meaning"]


def test_a_trained_module_without_a_witness_is_not_passed_over(request_: Request) -> None:
    document = report(verify(replace(request_, witness=None)), "made")
    text = Page(render(document)).text
    assert "trained the module as it was trained 85.00" in text
    assert "nothing recorded to compare with" in text


def test_an_unpriced_term_and_an_open_bound_are_said(documents: dict[str, dict[str, Any]]) -> None:
    document = copy.deepcopy(documents["PASSED"])
    energy = document["by_steps"][-1]["energy"]["loihi1"]
    none = {"value": None, "at_least": 0.0, "low": 0.0, "high": None}
    term = {"name": "macs", "what": "unpriced products", "count": 12_345, "prices": []}
    energy["terms"].append({**term, "amount": none})
    energy["unpriced"].append("macs")
    amount = {"value": None, "at_least": 2e6, "low": 2e6, "high": None}
    energy["dynamic"] |= {"per_inference": amount, "label": "at least", "grade": "U"}
    text = Page(render(document)).text
    assert "unpriced products — — 12,345 no price" in text
    assert "Dynamic, together at least 2.000 2.000 or more" in text
    assert "Not priced:" in text


def test_a_layer_that_does_not_fit_is_marked(documents: dict[str, dict[str, Any]]) -> None:
    document = copy.deepcopy(documents["PASSED"])
    energy = document["by_steps"][-1]["energy"]["loihi1"]
    excess = {"layer": "lif2", "limit": "axons_in", "needed": 5000, "allowed": 4096}
    energy["unmapped"] = [excess]
    energy["dynamic"]["label"] = "unmapped, at least"
    text = Page(render(document)).text
    assert "axons in: needs 5,000, has 4,096" in text
    assert "unmapped, at least" in text


def test_no_ratio_between_two_chips(documents: dict[str, dict[str, Any]]) -> None:
    document = documents["PASSED"]
    last = {row["network"]: row["energy"] for row in document["by_steps"]}
    ratios = [
        f"both on {price}: {energy['ann']['snn_over_ann']:.4g}"
        for prices in last.values()
        for price, energy in prices.items()
        if energy["ann"]["snn_over_ann"] is not None
    ]
    text = Page(render(document)).text
    assert len(re.findall(r"over ANN, both on", text)) == len(ratios) == 2
    for ratio in ratios:
        assert ratio in text


def colours(styles: str, dark: bool) -> dict[str, str]:
    blocks = re.findall(r":root \{(.*?)\}", styles, re.DOTALL)
    assert len(blocks) == 2
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[0]))
    if dark:
        found.update(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[1]))
    return found


def contrast(a: str, b: str) -> float:
    """WCAG 2.2, relative luminance."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_both_schemes_have_enough_contrast(
    documents: dict[str, dict[str, Any]], dark: bool
) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    styles = Page(render(documents["PASSED"])).styles
    assert "(prefers-color-scheme: dark)" in styles
    found = colours(styles, dark)
    texts = ("ink", "muted", "link", "passed", "failed", "could_not_run", "series-1", "series-2")
    for ground in ("page", "raised"):
        for text in texts:
            assert contrast(found[text], found[ground]) >= 4.5, (text, ground)
    for tone in ("passed", "failed", "could_not_run"):
        assert contrast(found["on-mark"], found[tone]) >= 4.5


def test_charts_have_no_colour_of_their_own(documents: dict[str, dict[str, Any]]) -> None:
    text = render(documents["PASSED"])
    charts = re.findall(r'<svg class="chart".*?</svg>', text, re.DOTALL)
    assert len(charts) == 2
    for chart in charts:
        assert "var(--series-1)" in chart
        assert "var(--series-2)" in chart
        assert not re.search(r"(fill|stroke|color): *(#|rgb|black|white)", chart)
        assert not re.search(r'(fill|stroke)="', chart)
        assert "<style" not in chart
        assert "http" not in chart
        assert "DejaVu" not in chart


def test_a_file_in_the_way_is_said_and_left(
    documents: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    place = tmp_path / "run"
    place.write_text("mine", encoding="utf-8")
    with pytest.raises(CouldNotRunError) as caught:
        write_report(documents["PASSED"], place)
    assert caught.value.code == "E_WRITE"
    assert place.read_text(encoding="utf-8") == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_without_its_parts_there_is_no_page_and_no_old_one(
    documents: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert page_missing() is None
    write_report(documents["PASSED"], tmp_path)
    assert (tmp_path / "report.html").is_file()
    real = page.find_spec
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == "jinja2" else real(name))
    sentence = page_missing()
    assert sentence is not None
    assert "jinja2 is not installed" in sentence
    assert "matplotlib" not in sentence
    remove_report(tmp_path)
    assert not list(tmp_path.iterdir())
    assert write_report(documents["FAILED"], tmp_path) == [tmp_path / "report.json"]
    assert not (tmp_path / "report.html").exists()
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["verdict"] == "FAILED"
    monkeypatch.setattr(page, "find_spec", lambda _: None)
    assert "jinja2 and matplotlib are not installed" in str(page_missing())


def test_numbers_as_a_reader_wants_them() -> None:
    from snnpipe.verify.energy_view import scale_of
    from snnpipe.verify.formats import chance, count, exact, figure, percent, signed

    assert [count(v) for v in (None, 0, 12_345, 1234.6, 12.3, 0.5)] == [
        "—",
        "0",
        "12,345",
        "1,235",
        "12.30",
        "0.5000",
    ]
    assert [figure(v) for v in (0, 3357.767, 0.0001823, 98.9066)] == [
        "0",
        "3,358",
        "0.0001823",
        "98.91",
    ]
    assert [signed(v) for v in (-9.666, 0.0, 1.5)] == ["−9.67", "0.00", "+1.50"]
    assert percent(0.90894) == "90.89"
    assert chance(3.7e-9) == "p < 0.0001"
    assert chance(0.5811) == "p = 0.58"
    assert exact(-0.5039186477661133) == "-0.503918648"
    column = scale_of([{"value": 3_357_767.9, "at_least": 0.0}, {"value": 182.3, "at_least": 0.0}])
    assert column.unit == "µJ"
    assert [column.text(v) for v in (3_357_767.9, 182.3, 0.0)] == ["3.358", "< 0.001", "0.000"]
