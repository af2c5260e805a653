"""The documents say what the stored figures say, and nothing that is measured stands anywhere else in them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.report import pages
from bench.report.pages import PAGES, PASSAGES, documents, filled, main, take
from bench.report.stored import RESULTS, ROOT, Stored
from bench.runs import experiment
from bench.runs.trial import cases
from bench.samples import load_samples
from collage.figures import MADE, read_figures

Found = dict[str, Any]
FILES = sorted(RESULTS.glob("*.json"))
MEASURED = re.compile(
    r"(?<![\w.])\d[\d,.]*(?: ?± ?\d[\d.]*)?[\s-]?"
    r"(?:%|(?:ms|us|µs|s|MB|KB|points?|seconds?|minutes?|hours?)\b(?!-cnn)|/s\b)"
)
SETTINGS = {
    "README.md": ["11 %"],  # of extra load, for 3 x 3: 1 / 9
    "docs/architecture.md": ["11 %"],
    "docs/codes.md": ["4 %"],  # 25, 11, 6, 4 %: 1 / N
    "docs/policy.md": ["95 %", "3 %"],  # of groups, of a price: rules
    "docs/results/README.md": ["95 %"],  # intervals
    "docs/training.md": ["1 %"],  # of the elements: a setting
    "docs/speed.md": ["1 KB", "1 s", "0.1 s", "0.5 s", "10 s", "3 KB"],  # what is offered; the size of a tensor
}
"""Numbers with a unit outside passages: none is a measurement."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of all that the documents are made of."""
    for name in (*PAGES, "models/zoo/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(RESULTS, tmp_path / "docs/results", dirs_exist_ok=True)
    for model in (ROOT / "models/zoo").glob("*.onnx"):
        (tmp_path / "models/zoo" / model.name).symlink_to(model)
    return tmp_path


def rows(name: str, **wanted: object) -> list[Found]:
    found = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return [row for row in found if all(row.get(key) == value for key, value in wanted.items())]


def cells(page: str, passage: str, line: str) -> list[str]:
    """The cells of the line of a passage's table that starts with these words, without these."""
    text = (ROOT / page).read_text()
    inside = text[text.index(f"<!-- begin {passage} -->") : text.index(f"<!-- end {passage} -->")]
    (found,) = (row for row in inside.splitlines() if row.startswith(f"| {line} |"))
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_the_documents_are_what_make_results_writes() -> None:
    written = documents()
    assert {str(page.relative_to(ROOT)) for page in written} == {
        *PAGES, "docs/results/bench-full.md", "models/zoo/README.md",
    }  # fmt: skip
    for page, text in written.items():
        assert page.read_text() == text, f"{page} is out of date: make results"


def test_every_passage_is_shown_and_every_page_has_one() -> None:
    shown = {name: set(re.findall(r"<!-- begin ([\w-]+) -->", (ROOT / name).read_text())) for name in PAGES}
    assert all(shown.values())
    assert set().union(*shown.values()) == set(PASSAGES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_row_names_the_command_commit_and_machine_that_made_it(file: Path) -> None:
    found = json.loads(file.read_text())
    once = {"command", "machine"} if file.stem == "frontier" else set()  # its rows have the columns of the plan alone
    assert found.keys() == {"rows", *once}, f"take it in: make results FIGURES={file.name}"
    assert found["rows"]
    for row in read_figures(file):
        assert re.match(r"(chrt -r 1 )?(python -m|make) ", row["command"])
        assert not re.search(r"/(work|tmp|home|root)/", row["command"]), "say it as one would type it in a checkout"
        assert re.fullmatch(r"[0-9a-f]{40}(, [0-9a-f]{40})*", row["commit"])
        assert re.match(r"[\w ()@.-]+, \d+ cores?, \w+", row["machine"])


def test_the_makefile_makes_the_published_real_runs_and_no_others() -> None:
    recipes = re.findall(r"^\t\$\(FULL\) (--.*)$", (ROOT / "Makefile").read_text(), re.M)
    made = set()
    for recipe in recipes:
        args, _ = experiment.parser().parse_known_args(recipe.split())
        if args.collect:
            continue
        loads = [float(load) for load in args.loads.split(",")] if args.loads else [None]
        seeds = [int(seed) for seed in args.seeds.split(",")]
        for regime in args.regimes.split(","):
            known = (regime, args.drawn or 9, args.groups)
            made |= {(*known, *case) for case in cases(args.policies.split(","), seeds, loads)}
    published = {
        (
            row["regime"],
            row["n"],
            row["groups"],
            row["policy"],
            row["seed"],
            row["load"],
            row.get("setting"),
            row.get("value"),
        )
        for row in rows("bench-full", source="real")
        if row["regime"] != "off"  # made with any of them
    }
    assert made == published


def test_nothing_measured_stands_outside_the_passages() -> None:
    names = ("architecture", "codes", "models", "policy", "results/README", "speed")
    for name in ("README.md", *(f"docs/{name}.md" for name in names)):
        text = pages.PASSAGE.sub("", (ROOT / name).read_text())
        text = re.sub(r"```.*?```", "", text, flags=re.S)
        assert set(MEASURED.findall(text)) <= set(SETTINGS.get(name, ())), f"{name}: put it into a passage"
    for example in ("299 ms", "94.19 %", "1.9 ± 0.2 %", "29 us", "3,650/s", "78.2 MB", "4 points"):
        assert MEASURED.findall(f"It is {example}.") == [example]


def test_the_first_page_tells_the_demos_latencies() -> None:
    none, replicate, collage = (one(rows("demo", policy=policy)) for policy in ("none", "replicate", "collage"))
    found = cells("README.md", "demo-short", "request p50 / p99, ms")
    assert found == [
        f"{round(1000 * row['p50_s'])} / {round(1000 * row['p99_s'])}" for row in (none, replicate, collage)
    ]
    assert cells("README.md", "demo-short", "group p95 (slowest of nine), ms") == [
        str(round(1000 * row["group_p95_s"])) for row in (none, replicate, collage)
    ]
    loads = [row["collage_load"] + row["replica_load"] for row in (none, replicate, collage)]
    assert cells("README.md", "demo-short", "extra load") == [f"{100 * load:.1f} %" for load in loads]
    images = min(none["requests"], len(load_samples()))
    spreads = [1.96 * (row["accuracy"] * (1 - row["accuracy"]) / images) ** 0.5 for row in (none, replicate, collage)]
    assert cells("README.md", "demo-short", "accuracy") == [
        f"{100 * row['accuracy']:.1f} ± {100 * spread:.1f} %"
        for row, spread in zip((none, replicate, collage), spreads, strict=True)
    ]
    assert f"{100 / 9:.0f} % extra load" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("dataset", "name"),
    [("fashion-mnist", "Fashion-MNIST"), ("cifar10-jpeg", "CIFAR-10 (JPEG copy)"), ("imagenette-224", "Imagenette")],
)
def test_the_first_page_tells_accuracy_per_image_and_what_is_accepted(dataset: str, name: str) -> None:
    roles = ("s-cnn", *(f"collage-{k}x{k}" for k in (2, 3, 4, 5)))
    found = [one(rows("evaluate", dataset=dataset, role=role)) for role in roles]
    images = found[0]["images"]
    assert cells("README.md", "accuracy-short", f"{name}, {images:,} images") == [
        f"{100 * row['top1']:.2f} ± {196 * (row['top1'] * (1 - row['top1']) / images) ** 0.5:.2f} %" for row in found
    ]
    text = (ROOT / "README.md").read_text()
    after = text[text.index(f"| {name}, ") :].splitlines()
    assert (
        after[1] == "| cells accepted |  | " + "".join(f"{100 * row['coverage']:.2f} % | " for row in found[1:]).strip()
    )
    assert after[2].startswith("| epochs | ")


def test_epochs_are_those_that_the_files_tell() -> None:
    text = (ROOT / "README.md").read_text()
    epochs = [line for line in text.splitlines() if line.startswith("| epochs | ")]
    assert epochs[0] == "| epochs | 10 | 12 | 25 | 10 | 10 |"
    cards = (ROOT / "models/zoo/README.md").read_text()
    for dataset, line in zip(("fashion-mnist", "cifar10-jpeg", "imagenette-224"), epochs, strict=True):
        for role, shown in zip(
            ("s-cnn", *(f"collage-{k}x{k}" for k in (2, 3, 4, 5))), line.strip("| ").split(" | ")[1:], strict=True
        ):
            (row,) = (row for row in cards.splitlines() if row.startswith(f"| [{dataset}-{role}](#"))
            assert shown == f"{float(row.split('|')[6]):.0f}"


def test_accepted_cells_are_not_all_that_are_not_empty() -> None:
    row = one(rows("evaluate", model="imagenette-224-collage-5x5"))
    assert cells("docs/results/README.md", "models", "Imagenette: 5 x 5 collage-cnn, 400 px")[1:3] == [
        f"{100 * row['answered_share']:.2f} %",
        f"{100 * row['coverage']:.2f} %",
    ]


def test_mlserver_is_compared_by_one_protocol_before_another() -> None:
    ours, theirs = (one(rows("speed", case=f"frontend, 150 KB{by}, to MLServer")) for by in ("", ", ModelInfer"))
    text = (ROOT / "docs/speed.md").read_text()
    alike = f"| 150 KB, ModelInfer on both sides | {theirs['ratio']:.2f} |"
    other = f"| 150 KB, Predict to its ModelInfer | {ours['ratio']:.2f} |"
    assert 0 < text.index(alike) < text.index(other)


def test_means_over_seeds_come_with_their_interval() -> None:
    found = rows("bench-full", source="real", regime="transient", offered="open", load=0.8, n=9, policy="adaptive")
    p99 = [row["p99_s"] for row in found]
    sent = [row["collage_load"] + row["replica_load"] for row in found]
    spreads = [4.303 * np.std(values, ddof=1) / 3**0.5 for values in (p99, sent)]
    assert cells("docs/results/README.md", "open-loop", "80 % of capacity")[-1] == (
        f"{1000 * np.mean(p99):.0f} ± {1000 * spreads[0]:.0f} ({100 * np.mean(sent):.1f} ± {100 * spreads[1]:.1f} %)"
    )


def one(found: list[Found]) -> Found:
    (row,) = found
    return row


def test_newer_figures_change_the_pages(copy: Path) -> None:
    file = copy / "docs/results/demo.json"
    content = json.loads(file.read_text())
    content["rows"][2]["p99_s"] = 0.1234
    file.write_text(json.dumps(content))
    changed = {str(page.relative_to(copy)) for page, text in documents(copy).items() if page.read_text() != text}
    assert changed == {"README.md", "docs/results/README.md"}
    text = documents(copy)[copy / "README.md"]
    p50 = f"{1000 * content['rows'][2]['p50_s']:.0f}"
    (line,) = (line for line in text.splitlines() if line.startswith("| request p50 / p99, ms |"))
    assert line.endswith(f"| {p50} / 123 |")


def test_rows_that_were_measured_again_replace_the_older_ones(tmp_path: Path) -> None:
    made = dict.fromkeys(MADE, "then")
    again = dict.fromkeys(MADE, "now")
    results = tmp_path / "results"
    results.mkdir()
    stored = [{"case": "a", "ratio": 1.0}, {"case": "b", "ratio": 2.0}]
    (results / "speed.json").write_text(json.dumps({"rows": [{**row, **made} for row in stored]}))
    (tmp_path / "speed.json").write_text(
        json.dumps({**again, "rows": [{"case": "b", "ratio": 3.0}, {"case": "c", "ratio": 4.0}]})
    )
    assert take(tmp_path / "speed.json", results) == results / "speed.json"
    assert read_figures(results / "speed.json") == [
        {"case": "a", "ratio": 1.0, **made}, {"case": "b", "ratio": 3.0, **again}, {"case": "c", "ratio": 4.0, **again},
    ]  # fmt: skip
    for name in ("soak", "overload"):
        (results / f"{name}.json").write_text(json.dumps({"rows": [{"requests": 1, **made}]}))
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": [{"requests": 2, **again}]}))
        take(tmp_path / f"{name}.json", results)
        assert read_figures(results / f"{name}.json") == [{"requests": 2, **again}]


def test_accuracy_of_a_busy_machine_keeps_the_stored_times_and_their_origin(copy: Path) -> None:
    results = copy / "docs/results"
    before = {row["model"]: row for row in read_figures(results / "evaluate.json") if row["kind"] != "code"}
    old = before["cifar10-jpeg-collage-3x3"]
    now = {"command": "python -m models.evaluate", "commit": "f" * 40, "machine": "Abacus, 1 core, Linux"}
    (copy / "evaluate.json").write_text(json.dumps({"rows": [
        {**old, **now, "top1": 0.5, "latency_s": 99.0, "latency_ratio": 99.0},
        {"dataset": "cifar10-jpeg", "model": "9 images of 224 px into 416 px", "kind": "code", "encode_s": 99.0, **now},
    ]}))  # fmt: skip
    take(copy / "evaluate.json", results, accuracy_only=True)
    after = read_figures(results / "evaluate.json")
    (row,) = (row for row in after if row["model"] == old["model"])
    origin = {f"latency_{key}": old.get(f"latency_{key}", old[key]) for key in MADE}
    assert row == {**old, **now, "top1": 0.5, **origin}
    assert not any(row.get("encode_s") == 99.0 for row in after)
    take(copy / "evaluate.json", results, accuracy_only=True)
    assert read_figures(results / "evaluate.json") == after, "the origin of times is kept a second time"
    pages = documents(copy)
    told = re.sub(r"\s+", " ", pages[copy / "docs/results/README.md"])
    assert re.search(rf"ffffff[^;*]*1 core of Abacus[^;*]*; latencies of [^*]*{origin['latency_commit'][:7]}", told)
    cards = pages[copy / "models/zoo/README.md"]
    assert f"at commit {'f' * 40}, on Abacus, 1 core, Linux: cifar10-jpeg-collage-3x3." in cards
    assert "latencies of" not in pages[copy / "README.md"]
    assert re.search(rf"- Latency: `.*` at commit {origin['latency_commit']}, on .*cifar10-jpeg-collage-3x3", cards)
    (copy / "evaluate.json").write_text(json.dumps({"rows": [{**old, **now, "version": "another"}]}))
    with pytest.raises(ValueError, match="this version has no stored times"):
        take(copy / "evaluate.json", results, accuracy_only=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<!-- begin gossip -->\n<!-- end gossip -->", "there is no passage gossip"),
        ("<!-- begin soak -->\nfigures", "<!-- begin soak --> has no counterpart"),
        ("figures\n<!-- end soak -->", "<!-- end soak --> has no counterpart"),
        ("<!-- begin soak -->\n<!-- end demo -->", "has no counterpart"),
    ],
)
def test_marks_that_cannot_be_used_are_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        filled(text, Stored())


def test_figures_without_rows_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "speed.json").write_text("{}")
    assert main([str(tmp_path / "speed.json")]) == 2
    assert capsys.readouterr().err == f"python -m bench tables: {tmp_path}/speed.json holds no rows\n"
    empty = Stored(tmp_path)
    (tmp_path / "demo.json").write_text(json.dumps({"rows": []}))
    with pytest.raises(ValueError, match=r"demo\.json has no row"):
        PASSAGES["demo"](empty)


def test_codes_are_drawn_once_when_all_figures_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(pages, "take", lambda figures, **_: done.append(str(figures)))
    monkeypatch.setattr(pages.code_passages, "draw", lambda _: done.append("drawn"))
    monkeypatch.setattr(pages, "documents", dict)
    assert main(["a/codes.json", "b/codes.json", "speed.json"]) == 0
    assert done == ["a/codes.json", "b/codes.json", "speed.json", "drawn"]
    done.clear()
    assert main(["speed.json"]) == 0
    assert done == ["speed.json"]


def test_the_command_leaves_documents_that_are_up_to_date_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = {page: page.stat().st_mtime_ns for page in documents()}
    assert main([]) == 0
    assert capsys.readouterr().out == ""
    assert {page: page.stat().st_mtime_ns for page in before} == before
