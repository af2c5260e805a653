"""The mutants can still be made of the code as it is, and are those of the document; running them takes minutes."""

from tests.frontend.mutants import MUTANTS, ROOT


def test_every_mutant_replaces_one_passage_and_is_listed() -> None:
    listed = (ROOT / "docs" / "mutants.md").read_text()
    for mutant in MUTANTS:
        assert (ROOT / "frontend" / "policy" / f"{mutant.room}.py").read_text().count(mutant.old) == 1, mutant.what
        assert f"| {mutant.what} | {mutant.room}.py |" in listed
    assert "**nothing**" not in listed
