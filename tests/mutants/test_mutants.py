"""The mutants can be made of the code as it is, and are those of the document; to run them takes minutes."""

import ast
from pathlib import Path

import pytest

from tests import mutants
from tests.mutants import EVERY, ROOT
from tests.mutants.mutant import Mutant
from tests.mutants.runner import LIMIT


@pytest.mark.parametrize("mutant", EVERY, ids=lambda mutant: mutant.what)
def test_a_mutant_replaces_one_passage_and_has_tests(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    source = (ROOT / mutant.file).read_text()
    changed = source.replace(mutant.old, mutant.new or "pass")
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
    before, after = source.split(mutant.old)
    whole = not before.rpartition("\n")[2].strip() and after.startswith("\n")
    assert mutant.new or whole, "only whole lines can be left out"
    assert mutant.tests
    assert all((ROOT / test).is_file() for test in mutant.tests)


def test_the_document_has_every_mutant_and_the_test_that_catches_it() -> None:
    assert len({mutant.what for mutant in EVERY}) == len(EVERY)
    listed = mutants.DOCUMENT.read_text()
    assert "**nothing**" not in listed
    for mutant in EVERY:
        assert f"| {mutant.what} | {mutant.file} | {mutant.how} | " in listed
    found = mutants.read()
    assert list(found) == [mutant.what for mutant in EVERY]
    for mutant in EVERY:
        caught = found[mutant.what]
        assert bool(mutant.harmless) == (caught == mutants.NOTHING), mutant.what
        known = any(f"def {caught.removesuffix(LIMIT)}(" in (ROOT / test).read_text() for test in mutant.tests)
        assert known or mutant.harmless, f"{caught} is no test of {mutant.file}"


def test_what_is_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "DOCUMENT", tmp_path / "mutants.md")
    first, second, third = EVERY[:3]
    monkeypatch.setattr(mutants, "EVERY", [first, second, third._replace(harmless="it is the same")])
    found = {first.what: "test_it", second.what: mutants.NOTHING, third.what: mutants.NOTHING}
    mutants.write(found)
    assert mutants.read() == found
    told = mutants.DOCUMENT.read_text()
    assert "1 of 2 survives" in told
    assert "1 more change" in told
    assert "| nothing: it is the same |" in told
