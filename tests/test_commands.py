"""Every command and every Python block in the documents is run by a test, or is listed here with the reason why not.

A new command in README.md, docs/, examples/ or another page fails the first test until it has a line in RUN or NOT_RUN.
Whatever the list says, the targets and flags of every command are checked.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import re
import shlex
import subprocess
import sys

import pytest

from tests.documents import PAGES, ROOT, commands, programs, usage

RUN = {
    "make up*": "tests/bench/cluster/test_local.py::test_up_says_how_to_call_it_and_ends_with_a_signal",
    "python -m bench tables *": "tests/bench/report/test_pages.py::"
    "test_accuracy_of_a_busy_machine_keeps_the_stored_times_and_their_origin",
    "make results*": "tests/bench/report/test_pages.py::test_the_command_leaves_documents_that_are_up_to_date_alone",
    "make demo": "tests/bench/runs/test_demo.py::test_the_demo_compares_three_policies",
    "python -m bench demo*": "tests/bench/runs/test_demo.py::"
    "test_the_demo_of_another_code_has_parms_policy_and_a_picture_of_a_decoding",
    "make clean": "tests/test_project.py::test_make_clean_keeps_results_and_trained_models",
    "python -m models.description*": "tests/models/test_description.py::test_a_file_is_described_for_a_fleet",
    "python -m bench providers": "tests/bench/runs/test_fleet.py::test_providers_are_compared_on_one_model",
    "make proto": "tests/test_stubs.py::test_committed_stubs_are_what_make_proto_generates",
    "make zoo*": "tests/models/test_zoo.py::test_own_images_get_an_s_cnn_and_a_collage_cnn_that_can_be_served",
    "make zoo DATA=photos*": "tests/models/test_distil.py::test_a_collage_cnn_is_distilled_from_photos_alone",
    "python -m models.evaluate *": "tests/models/test_distil.py::test_a_collage_cnn_is_distilled_from_photos_alone",
    "make zoo DATA=pets MODELS=out/pets CODE=*": "tests/models/test_parity.py::"
    "test_own_images_get_the_parity_model_that_is_asked_for",
    "python -m models.learned_export*": "tests/models/test_learned.py::"
    "test_a_code_is_learnt_through_a_base_model_and_exported",
    "python -m bench codes*": "tests/bench/runs/test_codes.py::test_codes_are_measured",
    "make data": "tests/models/test_fetch.py::test_an_archive_is_unpacked",
    "make evaluate*": "tests/models/test_evaluate.py::test_tables_and_pictures",
    "make help": "tests/test_commands.py::test_make_help_lists_every_target_for_users",
    "python -m models.readme_picture": "tests/models/test_readme_picture.py::test_the_command_draws_docs",
    "make bench-full-sim": "tests/bench/simulator/test_sweep.py::test_every_case_of_the_sweep_can_be_simulated",
    ".venv/bin/collage health": "tests/test_cli.py::test_health_shows_every_process_of_the_cluster_file",
    ".venv/bin/collage predict *": "tests/test_cli.py::test_predict_prints_a_table",
    "collage predict": "tests/test_sources.py::test_files_folders_addresses_and_standard_input_are_answered_in_order",
    "python -m bench replay": "tests/bench/offer/test_recordings.py::test_semicolons_tabs_and_decimal_commas",
    "collage predict shoe.png": "tests/test_cli.py::test_predict_prints_a_table",
    "python -m frontend*": "tests/bench/cluster/test_local.py::"
    "test_a_cluster_serves_survives_a_restart_of_its_frontend_and_leaves_nothing",
    "python -m worker*": "tests/worker/test_process.py::test_sigterm_finishes_the_call_in_flight_and_exits_0",
    "python -m models.teacher *": "tests/models/test_teacher.py::test_the_command_trains_resumes_and_exports",
    "python -m bench": "tests/bench/test_entry.py::test_every_command_is_listed_with_a_line",
    "python -m bench allreduce*": "tests/bench/runs/test_allreduce.py::test_a_short_run_on_real_processes",
    "python -m bench overload": "tests/bench/runs/test_overload.py::test_more_than_can_be_served_is_refused",
    "python -m bench envoy": "tests/bench/runs/test_envoy.py::test_a_short_run_hedges_and_writes_rows",
    "python -m bench hostile": "tests/bench/runs/test_hostile.py::test_a_short_run_writes_what_happened",
    "python -m bench soak": "tests/bench/runs/test_soak.py::"
    "test_nothing_is_lost_doubled_or_leaked_while_workers_die_and_freeze",
    "python -m bench speed*": "tests/bench/runs/test_speed.py::test_a_short_run",
    "python -m bench doors": "tests/bench/runs/test_speed.py::test_a_short_run_of_all_doors",
    "python -m bench frontier*": "tests/bench/simulator/test_frontier.py::"
    "test_a_plan_says_how_long_it_takes_and_bad_arguments_are_told",
    "python -m bench published*": "tests/bench/simulator/test_published.py::test_the_command_says_what_is_worse",
    "python -m bench confidences*": "tests/bench/runs/test_confidences.py::test_a_folder_without_data_is_told",
    "python -m bench experiment*": "tests/bench/runs/test_experiment.py::"
    "test_a_plan_says_how_long_it_takes_and_does_nothing",
    "python -m bench parm*": "tests/bench/runs/test_parm.py::test_too_few_queries_are_refused",
    "python -m bench accuracy *": "tests/bench/simulator/test_accuracy.py::test_the_command_counts_and_simulates",
    "python -m models.calibrate *": "tests/models/test_calibrate.py::test_only_validation_images_are_used",
    "python -m bench simulate*": "tests/bench/simulator/test_replay.py::test_regimes_are_simulated_by_name",
    "python -m bench replay --latencies *": "tests/bench/simulator/test_replay.py::"
    "test_a_users_latencies_become_figures",
    "python -m bench cluster up*": "tests/bench/cluster/test_local.py::"
    "test_up_says_how_to_call_it_and_ends_with_a_signal",
    "pip install ./proto": "tests/test_distributions.py::test_the_client_installs_beside_other_clients_and_works",
    "kubectl apply -k k8s/overlays/*": "tests/k8s/test_manifests.py::test_documents_fit_the_schemas_of_kubernetes",
    **{f"* examples/{name}*": f"tests/test_examples.py::test_{name}" for name in (
        "sync_client", "async_client", "stream_folder", "coded_answers", "pixels", "secure_client", "stubs",
        "open_inference", "command", "buf_curl", "curl", "speech",
    )},
}  # fmt: skip
"""Pattern of commands: the test that runs them, or what they call. Clusters are smaller there, and models tiny."""

NOT_RUN = {
    "make test": "it runs all tests, and this is one of them",
    "make check": "it runs all tests, and this is one of them",
    "make lint": "CI runs it before the tests",
    "make test-fleet": "it installs 850 MB; tests/fleet has tests of real servers",
    "python -m bench fleet*": "it needs real servers; tests/bench/runs/test_fleet.py tests its parts",
    "make audit": "it needs a service outside",
    "make images*": "it needs a builder of images; tests/k8s/test_manifests.py looks at what a builder is asked",
    "docker compose up": "it needs an engine; tests/k8s/test_compose.py checks the file",
    "make k8s-validate": "it runs tests/k8s, and this is one of its neighbours",
    "make bench-full*": "it takes hours",
    "python -m bench monitoring*": "it needs a Prometheus and takes minutes; its parts have tests in tests/k8s",
    "python -m bench replay --events FILE": "its flags only: tests/frontend/test_recorder.py records and replays",
    "python -m models.train *": "its flags only: tests/models/test_train.py trains",
    "make mutants": "it takes minutes; tests/mutants/test_mutants.py tries one mutant",
    "python -m tests.mutants*": "it takes minutes; tests/mutants/test_mutants.py tries one mutant",
    "python -m tests.page_pictures": "it takes five minutes; tests/frontend/http/test_page.py presses the same",
    "FUZZ_EXAMPLES=5000 *": "it takes 20 minutes; tests/test_fuzz.py runs with fewer examples",
    "chrt -r 1": "a way to run a command, with real-time priority, which takes rights",
    "pre-commit install": "it changes the checkout; tests/test_project.py compares the hooks with make lint",
    "pip install -e '.?traces?'": "it changes the environment; tests/test_traces.py needs what it installs",
    ". .venv*/bin/activate": "it is Python's own script",
}
"""Pattern of commands: why no test runs them."""

EXAMPLES = sorted(file for file in (ROOT / "examples").iterdir() if file.suffix in {".py", ".sh"})
EVERY = sorted({*(command for page in PAGES for command in commands(page)), *map(usage, EXAMPLES)})


def test_every_command_is_run_by_a_test_or_has_a_reason() -> None:
    assert len(EVERY) > 30, "the documents are found and read"
    unknown = [command for command in EVERY if not _listed(command)]
    assert unknown == [], "name the test that runs it in RUN, or the reason in NOT_RUN"


def test_the_list_names_commands_and_tests_that_exist() -> None:
    unused = [item for item in (*RUN, *NOT_RUN) if not any(fnmatch.fnmatch(command, item) for command in EVERY)]
    assert unused == [], "no document has such a command"
    for test in RUN.values():
        file, _, name = test.partition("::")
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.M), test


def _listed(command: str) -> bool:
    return any(fnmatch.fnmatch(command, pattern) for pattern in (*RUN, *NOT_RUN))


def test_targets_and_variables_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in EVERY:
        words = shlex.split(command)
        if words[0] == "make":
            asked = ["make", "--dry-run", *words[1:]]
            dry = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
            assert dry.returncode == 0, f"{command}: {dry.stderr}"
            for name in (word.partition("=")[0] for word in words[1:] if "=" in word):
                assert re.search(rf"^{name} \?=", makefile, re.M), command


def test_make_help_lists_every_target_for_users() -> None:
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = {line.split()[0] for line in printed.splitlines()}
    words = {word for command in EVERY if command.startswith("make ") for word in command.split()[1:]}
    targets = {word for word in words if "=" not in word and not word.startswith("bench-full-")}  # parts of bench-full
    assert targets <= listed


@functools.cache
def _help(*words: str) -> str:
    asked = subprocess.run(
        [sys.executable, "-m", *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert asked.returncode == 0, f"python -m {' '.join(words)} --help: {asked.stderr[-500:]}"
    return asked.stdout


@pytest.mark.parametrize("command", [command for command in EVERY if command.startswith("python -m ")])
def test_modules_and_flags_exist(command: str) -> None:
    words = shlex.split(command)[2:]
    if words[0].startswith("tests."):
        place = ROOT / words[0].replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()
        return
    names = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    shown = _help(*words[:names])
    flags = [word.partition("=")[0] for word in words[names:] if word.startswith("--")]
    assert [flag for flag in flags if not re.search(rf"{flag}\b", shown)] == []


def test_python_blocks_are_python() -> None:
    blocks = [(page, block) for page in PAGES for block in programs(page)]
    assert len(blocks) >= 3
    for page, block in blocks:
        compile(block, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
