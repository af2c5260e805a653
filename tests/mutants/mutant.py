"""A wrong version of the code, and the tests that should notice it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_FRONTEND = "tests/frontend/test_"
_PARTS = ("codes", "first_come", "groups", "limits", "adaptive", "accuracy", "late", "table", "properties")
_POLICY = [
    *(f"{_FRONTEND}{name}.py" for name in ("groups", "policy")),
    *(f"{_FRONTEND}policy_{part}.py" for part in _PARTS),
]
_DISPATCH = [f"{_FRONTEND}dispatch{part}.py" for part in ("", "_limits", "_meanwhile")]
_HTTP = "tests/frontend/http/test_"
_BENCH, _BENCH_OFFER = "tests/bench/test_", "tests/bench/offer/test_"
_SIMULATOR = "tests/bench/simulator/test_"
_WORKER = "tests/worker/test_"
_INFERENCE = [
    "tests/test_inference_service.py",
    "tests/test_inference.py",
    "tests/worker/test_inference.py",
    f"{_FRONTEND}inference.py",
]
_MODELS = "tests/models/test_"
_TRAINING = [f"{_MODELS}{name}.py" for name in ("loop", "train", "lessons", "tasks", "parity")]
_CODING = [f"{_FRONTEND}{name}.py" for name in ("coding", "coding_limits", "new_code")]
_INTAKE = [f"tests/test_intake{part}.py" for part in ("_rules", "")]
TESTS = {
    "frontend/policy/quantile.py": [f"{_FRONTEND}quantile.py", *_POLICY, f"{_FRONTEND}deferral.py"],
    "frontend/policy/deferral.py": [
        *(f"{_FRONTEND}{name}.py" for name in ("forming", "deferral")),
        f"{_SIMULATOR}deferral.py",
        *_POLICY,
    ],
    "frontend/policy/forming.py": [*(f"{_FRONTEND}{name}.py" for name in ("forming", "deferral")), *_POLICY],
    "frontend/policy/groups.py": [*(f"{_FRONTEND}{name}.py" for name in ("groups", "forming")), *_POLICY],
    "frontend/policy/balance.py": [
        f"{_FRONTEND}balance.py",
        f"{_FRONTEND}choices.py",
        f"{_FRONTEND}ejection.py",
        f"{_FRONTEND}probation.py",
    ],
    "frontend/policy/choices.py": [f"{_FRONTEND}choices.py", f"{_FRONTEND}balance.py", f"{_SIMULATOR}rivals.py"],
    "frontend/policy/shelves.py": [f"{_FRONTEND}choices.py", f"{_FRONTEND}balance.py", f"{_FRONTEND}probation.py"],
    "frontend/policy/ejection.py": [f"{_FRONTEND}ejection.py", f"{_FRONTEND}probation.py", f"{_SIMULATOR}ejection.py"],
    "frontend/policy/elect.py": [f"{_FRONTEND}elect.py"],
    "frontend/policy/admission.py": [f"{_FRONTEND}admission.py", f"{_FRONTEND}dispatch.py"],
    "frontend/policy/shares.py": [f"{_FRONTEND}shares.py", f"{_FRONTEND}dispatch_limits.py"],
    "frontend/policy/accuracy.py": [f"{_FRONTEND}accuracy.py", f"{_FRONTEND}policy_accuracy.py"],
    "frontend/policy/": [f"{_FRONTEND}forming.py", *_POLICY, f"{_FRONTEND}deferral.py"],
    "frontend/coding.py": [*_CODING, *_DISPATCH],
    "frontend/fitting.py": [
        *_CODING,
        f"{_FRONTEND}own_code.py",
        f"{_FRONTEND}grids.py",
        f"{_FRONTEND}dispatch_limits.py",
    ],
    "frontend/own_code.py": [f"{_FRONTEND}own_code.py"],
    "frontend/policy/grids.py": [f"{_FRONTEND}grids.py"],
    "frontend/server.py": [f"{_FRONTEND}{name}.py" for name in ("told", "caller_limits", "server", "stream_limits")],
    "frontend/stream.py": [
        f"{_FRONTEND}{name}.py" for name in ("stream", "told", "caller_limits", "stream_limits", "server")
    ],
    "frontend/inference.py": [f"{_FRONTEND}{name}.py" for name in ("batches", "told", "caller_limits", "inference")],
    "frontend/jobs.py": [f"{_FRONTEND}decoding.py", *_DISPATCH],
    "frontend/dispatch.py": [*_DISPATCH, f"{_FRONTEND}decoding.py", *_CODING],
    "frontend/timers.py": [f"{_FRONTEND}timers.py"],
    "frontend/metrics.py": [
        "tests/test_metrics.py",
        *(f"{_FRONTEND}{name}.py" for name in ("recorder", "dispatch_meanwhile", "server")),
    ],
    "frontend/config.py": [*(f"{_FRONTEND}{name}.py" for name in ("config", "process")), f"{_HTTP}page.py"],
    "frontend/__main__.py": [
        *(f"{_FRONTEND}{name}.py" for name in ("config", "server", "process")),
        "tests/test_metrics_port.py",
    ],
    "frontend/workers/streams.py": [
        f"{_FRONTEND}{name}.py" for name in ("streams", "stream_limits", "told", "workers")
    ],
    "frontend/workers/transport.py": [
        *(f"{_FRONTEND}{name}.py" for name in ("told", "stream_limits", "workers", "streams", "discovery")),
        "tests/test_security.py",
        "tests/test_rotation.py",
    ],
    "frontend/workers/discovery.py": [f"{_FRONTEND}discovery.py", f"{_FRONTEND}workers.py"],
    "frontend/workers/fleet.py": [f"{_FRONTEND}fleet_form.py"],
    "frontend/workers/open_inference.py": [f"{_FRONTEND}open_inference.py"],
    "frontend/workers/": [
        f"{_FRONTEND}{name}.py"
        for name in ("lists", "workers", "stream_limits", "discovery", "streams", "dispatch_limits", "server")
    ],
    "frontend/recorder.py": [f"{_FRONTEND}recorder.py", f"{_FRONTEND}dispatch.py"],
    "frontend/tracing.py": ["tests/test_traces.py"],
    "frontend/http/call.py": [f"{_HTTP}{name}.py" for name in ("rest", "port")],
    "frontend/http/port.py": [f"{_HTTP}port.py", f"{_HTTP}rest.py"],
    "frontend/http/open_inference.py": [f"{_HTTP}open_inference.py"],
    "frontend/http/playground.py": [f"{_HTTP}page.py"],
    "frontend/http/": [f"{_HTTP}rest.py"],
    "frontend/": [*_DISPATCH, *_CODING],
    "encoder/code.py": [f"{_FRONTEND}policy_codes.py"],
    "encoder/linear.py": [*(f"tests/encoder/test_{name}.py" for name in ("linear", "berrut")), f"{_FRONTEND}coding.py"],
    "encoder/collage.py": ["tests/encoder/test_collage.py"],
    "encoder/tasks.py": ["tests/encoder/test_tasks.py"],
    "encoder/codes.py": ["tests/encoder/test_codes.py"],
    "encoder/heads.py": ["tests/encoder/test_heads.py"],
    "encoder/berrut.py": ["tests/encoder/test_berrut.py"],
    "encoder/learned.py": ["tests/encoder/test_learned.py"],
    "encoder/grid.py": ["tests/encoder/test_grid.py", "tests/encoder/test_collage.py"],
    "encoder/files.py": [f"tests/encoder/test_{name}.py" for name in ("files", "damage", "bounds")],
    "encoder/image.py": [f"tests/encoder/test_{name}.py" for name in ("image", "bounds", "damage")],
    "proto/collage/figures.py": ["tests/test_figures.py"],
    "proto/collage/intake.py": [
        *_INTAKE,
        "tests/test_serving.py",
        f"{_FRONTEND}server.py",
    ],
    "proto/collage/wire.py": ["tests/test_wire.py", *_INTAKE],
    "proto/collage/model_files.py": [f"{_WORKER}model_files.py"],
    "proto/collage/tensors.py": ["tests/test_tensors.py"],
    "proto/collage/plain.py": [f"{_WORKER}plain.py", f"{_WORKER}model_files.py"],
    "proto/collage/specs.py": [
        "tests/test_model_info.py",
        "tests/test_model_forms.py",
        f"{_WORKER}model_files.py",
        "tests/test_linear.py",
    ],
    "proto/collage/model_info.py": [
        "tests/test_model_info.py",
        "tests/test_model_forms.py",
        f"{_WORKER}model_files.py",
        "tests/test_linear.py",
    ],
    "proto/collage/texts.py": ["tests/test_logs.py", "tests/test_cli.py"],
    "proto/collage/logs.py": ["tests/test_logs.py"],
    "proto/collage/metrics_port.py": ["tests/test_metrics_port.py"],
    "proto/collage/startup.py": ["tests/test_startup.py"],
    "proto/collage/cli.py": ["tests/test_cli.py"],
    "proto/collage/errors.py": [
        *_INTAKE,
        "tests/test_serving.py",
        f"{_FRONTEND}told.py",
        f"{_FRONTEND}server.py",
    ],
    "proto/collage/channels.py": [
        "tests/test_channel_options.py",
        "tests/test_metrics_port.py",
        "tests/test_channels.py",
    ],
    "proto/collage/health.py": ["tests/test_health.py", "tests/test_serving.py"],
    "proto/collage/security.py": [
        *(f"tests/test_{name}.py" for name in ("security", "rotation", "inputs")),
        f"{_HTTP}rest.py",
    ],
    "proto/collage/traces.py": ["tests/test_traces.py"],
    "proto/collage/serving.py": [
        "tests/test_serving.py",
        *_INTAKE,
        "tests/test_health.py",
        "tests/test_startup.py",
        "tests/test_security.py",
        f"{_WORKER}lifecycle.py",
        f"{_WORKER}streams.py",
    ],
    "proto/collage/answers.py": [f"tests/test_{name}.py" for name in ("client", "sync_client", "cli", "answers")],
    "proto/collage/inputs.py": ["tests/test_inputs.py", "tests/test_client.py", "tests/test_sync_client.py"],
    "proto/collage/client.py": [f"tests/test_{name}.py" for name in ("client", "answers", "rotation", "security")],
    "proto/collage/sync.py": [f"tests/test_{name}.py" for name in ("sync_client", "answers", "rotation", "security")],
    "proto/inference/tensors.py": _INFERENCE,
    "proto/inference/service.py": _INFERENCE,
    "worker/engine.py": [f"{_WORKER}{name}.py" for name in ("engine", "inference", "server", "streams")],
    "worker/streams.py": [f"{_WORKER}streams.py"],
    "worker/slowdown.py": [f"{_WORKER}slowdown.py", f"{_WORKER}engine.py"],
    "worker/model.py": [f"{_WORKER}{name}.py" for name in ("graph", "model", "plain", "model_files", "engine")],
    "worker/providers.py": [f"{_WORKER}providers.py"],
    "worker/server.py": [f"{_WORKER}{name}.py" for name in ("server", "lifecycle", "streams", "engine", "inference")],
    "worker/inference.py": [f"{_WORKER}inference.py", f"{_WORKER}decoding.py"],
    "bench/measured.py": [f"{_BENCH}measured.py"],
    "bench/samples.py": [f"{_BENCH}samples.py", f"{_BENCH_OFFER}load.py"],
    "proto/collage/flags.py": ["tests/test_flags.py"],
    "proto/collage/sources.py": ["tests/test_sources.py"],
    "bench/offer/load.py": [f"{_BENCH_OFFER}load.py"],
    "bench/offer/recordings.py": [
        f"{_BENCH_OFFER}recordings.py",
        f"{_BENCH_OFFER}latency.py",
        f"{_SIMULATOR}replay.py",
    ],
    "bench/offer/workload.py": [f"{_BENCH_OFFER}workload.py", f"{_BENCH_OFFER}latency.py", f"{_SIMULATOR}replay.py"],
    "bench/simulator/prequal.py": [f"{_SIMULATOR}rivals.py"],
    "bench/simulator/rivals.py": [f"{_SIMULATOR}rivals.py"],
    "bench/simulator/frontier.py": [f"{_SIMULATOR}frontier.py"],
    "bench/simulator/plans.py": [f"{_SIMULATOR}frontier.py"],
    "bench/simulator/parm.py": [f"{_SIMULATOR}parm.py"],
    "bench/simulator/published.py": [f"{_SIMULATOR}published.py"],
    "bench/simulator/replay.py": [f"{_SIMULATOR}stations.py", f"{_SIMULATOR}replay.py"],
    "bench/simulator/": [f"{_SIMULATOR}stations.py", f"{_SIMULATOR}simulate.py", f"{_SIMULATOR}rivals.py"],
    "bench/report/frontier.py": ["tests/bench/report/test_frontier.py"],
    "bench/report/": ["tests/bench/report/test_comparison.py", "tests/bench/report/test_pages.py"],
    "bench/cluster/envoy.py": ["tests/bench/cluster/test_envoy.py"],
    "bench/cluster/local.py": ["tests/bench/cluster/test_local.py"],
    "bench/cluster/greeting.py": ["tests/bench/cluster/test_local.py"],
    "bench/cluster/answers.py": ["tests/bench/runs/test_parm.py", "tests/bench/runs/test_experiment.py"],
    "bench/cluster/standins.py": ["tests/bench/cluster/test_standins.py"],
    "bench/runs/parm.py": ["tests/bench/runs/test_parm.py"],
    "bench/runs/envoy.py": ["tests/bench/runs/test_envoy.py"],
    "bench/runs/confidences.py": ["tests/bench/runs/test_confidences.py"],
    "bench/runs/trial.py": ["tests/bench/runs/test_experiment.py"],
    "bench/runs/soak.py": ["tests/bench/runs/test_verdicts.py"],
    "bench/runs/speed.py": ["tests/bench/runs/test_verdicts.py", "tests/bench/runs/test_speed.py"],
    "models/calibrate.py": [f"{_MODELS}{name}.py" for name in ("calibrate", "figures", "measure")],
    "models/measure.py": [f"{_MODELS}{name}.py" for name in ("calibrate", "measure", "figures", "evaluate")],
    "models/evaluate.py": [f"{_MODELS}{name}.py" for name in ("measure", "figures", "evaluate")],
    "models/tables.py": [f"{_MODELS}measure.py", f"{_MODELS}cards.py"],
    "models/data.py": [f"{_MODELS}data.py"],
    "models/tiny_imagenet.py": [f"{_MODELS}data.py"],
    "models/lineage.py": [f"{_MODELS}lineage.py"],
    "models/lessons.py": [f"{_MODELS}lessons.py"],
    "models/tasks/parity.py": [f"{_MODELS}parity.py"],
    "models/tasks/learned.py": [f"{_MODELS}learned.py"],
    "models/learned_code.py": [f"{_MODELS}learned.py"],
    "models/coding.py": [f"{_MODELS}parity.py"],
    "models/lost.py": [f"{_MODELS}lost.py"],
    "models/boxes.py": [f"{_MODELS}localisation.py"],
    "models/tasks/localisation.py": [f"{_MODELS}localisation.py"],
    "bench/runs/codes.py": ["tests/bench/runs/test_codes.py"],
    "models/tasks/": [f"{_MODELS}tasks.py"],
    "models/trainer.py": _TRAINING,
    "models/export.py": [f"{_MODELS}export.py"],
    "models/transfer.py": [f"{_MODELS}transfer.py", f"{_MODELS}restore.py"],
    "models/augment.py": [f"{_MODELS}augment.py", f"{_MODELS}tasks.py"],
    "models/optim.py": [f"{_MODELS}optim.py", f"{_MODELS}train.py"],
    "models/distributed/team.py": ["tests/models/distributed/test_team.py"],
    "models/distributed/": [f"tests/models/distributed/test_{name}.py" for name in ("ring", "additions")],
    "models/checkpoint.py": [f"{_MODELS}checkpoint.py"],
}
"""Tests by the file or folder that they are of, quick ones first."""


class Mutant(NamedTuple):
    """One passage of a file that is replaced; nothing in its place means that it, or its lines, are left out."""

    what: str
    file: str
    old: str
    new: str
    harmless: str = ""
    """Why no test can notice it; empty if one must."""

    @property
    def tests(self) -> Sequence[str]:
        """The test files that run with it, in this order."""
        return next(tests for place, tests in TESTS.items() if self.file.startswith(place))

    def applied(self, source: str) -> str:
        """The wrong version of its file's source, in which the passage is once."""
        before, after = source.split(self.old)
        whole = not before.rpartition("\n")[2].strip() and after.startswith("\n")
        return before + (self.new or "pass" * whole) + after

    @property
    def how(self) -> str:
        """What is replaced, in one line."""
        return f"{_code(self.old)} becomes {_code(self.new)}" if self.new else f"{_code(self.old)} is left out"


def _code(text: str) -> str:
    one_line = " ".join(text.split()).replace("|", "\\|")
    return f"`{one_line}`"
