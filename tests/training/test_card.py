"""The card tells every fact, escapes every name, fetches nothing, and is the same every time."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from contract.bundle import Calibration, FeatureReference, Manifest, Provenance, Reference
from contract.features import Categorical, Feature, Numeric, Sequence
from contract.tasks import CLICK_AND_CONVERSION, Task, outputs
from models.architecture import Particular
from training.card import CardFacts, Loss, Sliced, Split, encoding, render_card
from training.evaluation import curves, evaluate, measured_rows, slices

HOSTILE = "<script>alert('x')</script>&\"name"
VOID = {"meta", "br", "img", "link", "input", "hr"}


@pytest.fixture(scope="module")
def facts() -> CardFacts:
    rng = np.random.default_rng(0)
    click, conversion = rng.beta(2, 40, 4000), rng.beta(2, 9, 4000)
    clicked = rng.random(4000) < click
    labels = np.stack([clicked, clicked & (rng.random(4000) < conversion)], axis=1)
    scores = {"pctr": click, "pcvr": conversion, "pctcvr": click * conversion}
    features = (
        Categorical(name="city", side="user"),
        Sequence(name="recent", side="user", share="item", max_length=7),
        Categorical(name="item", side="item", buckets=5000),
        Numeric(name="price", side="item", scale="log1p"),
        Categorical(name=HOSTILE, side="item"),
    )
    manifest = Manifest(
        format_version=1,
        name="shop",
        version="7",
        tasks=CLICK_AND_CONVERSION,
        features=features,
        inputs=(),
        outputs=outputs(CLICK_AND_CONVERSION),
        architecture="ple",
        parameters=1_234_567,
        calibration=(
            Calibration(task="click", slope=0.9731, intercept=-0.1142),
            Calibration(task="conversion", slope=1.0825, intercept=0.2317),
        ),
        reference=Reference(
            rows=500, features=(FeatureReference(name="city", missing_rate=0.0125, unknown_rate=0.031),)
        ),
        metrics=evaluate(CLICK_AND_CONVERSION, scores, labels, group=np.arange(4000) % 90, truth=scores, resamples=10),
        parity=2.4e-7,
        provenance=Provenance(
            run={"data": {"source": f"</pre>{HOSTILE}"}},
            seed=42,
            libraries={"torch": "2.13.0"},
            data_fingerprint="f1" * 32,
            git_commit="ab" * 20,
        ),
    )
    return CardFacts(
        manifest=manifest,
        objective="entire_space",
        splits=(Split("train", 90_000, (0.04, 0.003), ("2026-01-01", "2026-01-20")), Split("test", 4000, (0.05, 0.0))),
        curves=curves(measured_rows(CLICK_AND_CONVERSION, scores, labels, truth=scores)),
        losses=tuple(Loss(step, 0.2 - step / 1e5, 0.21 - step / 2e5) for step in range(100, 1100, 100)),
        chosen_step=800,
        sliced=(Sliced("city", "pctr", slices(rng.choice(np.array(["Oslo", HOSTILE]), 4000), clicked, click)),),
        table_rows={"city": 312, "item": 5002},
        parity_rows=12_345,
        limits=("Late conversions are not labelled.",),
        particulars=(
            Particular("Gates", "Who listens to whom.", ("task", "shared"), (("click", 0.314), ("buy", 0.686)), True),
            Particular("Layers", "Sizes.", ("level", "width", "kind"), (("first", 128, HOSTILE),)),
        ),
    )


@pytest.fixture(scope="module")
def page(facts: CardFacts) -> str:
    return render_card(facts)


class Outline(HTMLParser):
    """Checks nesting; collects tags, ids, references and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.refs: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += given.items()
        self.ids += [given["id"]] if "id" in given else []
        self.refs += given.get("aria-labelledby", "").split()
        self.refs += [given["href"][1:]] if given.get("href", "").startswith("#") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += ((name, value or "") for name, value in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    assert parser.open == []
    return parser


def words(page: str) -> str:
    return " ".join(" ".join(outline(page).text).split())


def test_page_is_well_formed_and_its_references_lead_somewhere(page: str) -> None:
    found = outline(page)
    assert len(found.ids) == len(set(found.ids))
    assert set(found.refs) <= set(found.ids)
    assert len(found.refs) > 10
    assert found.tags.count("h1") == 1
    assert found.tags.count("svg") > found.tags.count("figure") == 4


def test_every_chart_has_a_title_a_description_and_a_table(page: str) -> None:
    charts = re.findall(r'<svg class="chart".*?</svg>', page, re.S)
    assert len(charts) == 4
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert (root[0].tag, root[1].tag) == ("title", "desc")
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-labelledby"].split() == [root[0].attrib["id"], root[1].attrib["id"]]
    for figure in re.findall(r"<figure>.*?</figure>", page, re.S):
        assert "<table>" in figure


def test_names_are_escaped_wherever_they_appear(page: str) -> None:
    assert "<script" not in page
    found = outline(page)
    assert "script" not in found.tags
    assert found.tags.count("pre") == 1
    text = "".join(found.text)
    assert text.count(HOSTILE) == 3, "a feature, a slice and a particular"
    assert json.loads(text[text.rindex("carried out{") + 11 : text.rindex("}") + 1]) == {
        "data": {"source": f"</pre>{HOSTILE}"}
    }


def test_page_needs_no_network_and_runs_nothing(page: str) -> None:
    found = outline(page)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on") or name in ("src", "action")]
    assert all(value.startswith("#") for name, value in found.attributes if name == "href")
    assert "http:" not in page.replace("http-equiv", "")
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_equal_facts_give_equal_bytes(facts: CardFacts, page: str) -> None:
    assert render_card(replace(facts)).encode() == page.encode()
    assert render_card(replace(facts, chosen_step=700)) != page


def test_light_dark_and_print_are_styled(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_card_tells_what_the_model_is_and_how_good(facts: CardFacts, page: str) -> None:
    text = words(page)
    assert "shop version 7" in text
    assert "Predicts pctr, pcvr and pctcvr for every candidate from 5 features" in text
    assert "ple (1,234,567 parameters) and the objective entire_space" in text
    assert "Trained on 90,000 rows from 2026-01-01 to 2026-01-20." in text
    for meaning in ("P(click)", "P(conversion | click)", "P(conversion)"):
        assert meaning in text
    value = next(m for m in facts.manifest.metrics if (m.name, m.output, m.rows) == ("auc", "pctr", "all"))
    assert text.count(f"{value.value:.3f}") >= 2, "in the head and in the table"
    head = page[page.index('<ul class="tiles"') : page.index("<nav")]
    assert re.findall(r'class="name">(\w+)<', head) == ["pctr", "pcvr", "pctcvr"], "observed labels only, not the truth"
    for title in ("AUC", "GAUC", "Log-loss", "NE", "ECE", "PCOC"):
        assert title in text


def test_card_tells_data_features_checks_and_provenance(page: str) -> None:
    text = words(page)
    assert "train 90,000 4.00 % 0.300 % 2026-01-01 to 2026-01-20" in text
    assert "test 4,000 5.00 % 0 % not known" in text
    assert "city user categorical vocabulary, seen ≥ 2 times 312 1.2 % 3.1 %" in text
    assert "recent user sequence last 7, table of item 5,002" in text
    assert "item item categorical hashed into 5,000 5,002" in text
    assert "price item numeric log(1 + |x|), standardised" in text
    assert "at most 2.4e-07 in probability, over 12,345 held-out rows" in text
    assert "conversion click 1.0825 0.2317" in text
    assert "click – 0.9731 −0.1142" in text  # noqa: RUF001
    assert "f1" * 32 in text
    assert "torch 2.13.0" in text
    assert "chosen: step 800" in text
    assert "Late conversions are not labelled." in text


def test_shaded_particular_carries_its_shares(page: str) -> None:
    assert 'style="--share:0.314">0.31</td>' in page
    assert '<td class="number">128</td>' in page


def test_what_was_not_measured_is_said(facts: CardFacts, page: str) -> None:
    assert "pcvr over all rows" not in words(page)
    observed = tuple(m for m in facts.manifest.metrics if m.rows != "truth" and m.name != "gauc")
    poor = replace(facts, manifest=facts.manifest.model_copy(update={"metrics": observed}), sliced=())
    text = words(render_card(poor))
    assert "pcvr over all rows: its label exists only where its condition held" in text
    assert "GAUC): the run names no group key" in text
    assert "Calibration per slice" in text
    assert "Fairness between groups of people" in text
    assert "Decisions about people" in text


def test_undefined_metric_is_a_dash(facts: CardFacts) -> None:
    some = tuple(m for m in facts.manifest.metrics if (m.output, m.name) != ("pctcvr", "auc"))
    text = words(render_card(replace(facts, manifest=facts.manifest.model_copy(update={"metrics": some}))))
    assert "pctcvr P(conversion) all rows –" in text  # noqa: RUF001


def test_card_of_one_task_without_anything_optional(facts: CardFacts) -> None:
    tasks = (Task(name="open", label="o"),)
    bare = facts.manifest.model_copy(
        update={
            "tasks": tasks,
            "metrics": (),
            "calibration": (),
            "reference": Reference(rows=0),
            "outputs": outputs(tasks),
        }
    )
    page = render_card(CardFacts(manifest=bare, objective="independent", splits=(), curves=(), losses=()))
    text = words(page)
    assert "Predicts p_open for every candidate" in text
    assert "Nothing was measured" in text
    for section in ("Slices", "Training", "Architecture"):
        assert section not in text


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        (Categorical(name="a", side="user", min_count=5), "vocabulary, seen ≥ 5 times"),
        (Numeric(name="a", side="user"), "standardised"),
        (Numeric(name="a", side="user", scale="quantile", bins=9), "9 quantile buckets"),
        (Numeric(name="a", side="user", scale="piecewise"), "piecewise-linear, 16 bins"),
        (Sequence(name="a", side="user", buckets=1000, max_length=3), "last 3, hashed into 1,000"),
    ],
)
def test_encoding_in_words(feature: Feature, expected: str) -> None:
    assert encoding(feature) == expected
