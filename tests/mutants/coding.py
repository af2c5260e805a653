"""Wrong versions of the shell that runs codes: which workers fit, what is sent, decoded, told and forgotten."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_CODING: list[tuple[str, ...]] = [
    ("base version not compared: of a sibling's answer", ' and run.code.base in ("", own.model.version):', ":"),
    ("labels not compared: of a sibling's answer", "if own.model.labels == job.model.labels and run", "if run"),
    (
        "labels or task not compared: of a member that is decoded",
        "if (job.model.task, job.model.labels) != (model.task, model.labels):",
        "if False:",
    ),
    (
        "row order ignored: all inputs go to the first workers",
        "self._pools[row].pick()",
        "self._pools[0].pick()",
    ),
    (
        "row order ignored: outputs in the order of their return",
        "run.coded[row] = outcome.outputs",
        "run.coded[len(run.coded)] = outcome.outputs",
    ),
    (
        "row order ignored: all runs are numbered 0",
        "worker.call(redundant, name, row, timeout_s, ended)",
        "worker.call(redundant, name, 0, timeout_s, ended)",
    ),
    (
        "confidence of codes that know none: always sure",
        "TASKS[model.task].confidence(found.output) if told is None else told",
        "1.0 if told is None else told",
    ),
    (
        "confidence of the code overruled by its output",
        "TASKS[model.task].confidence(found.output) if told is None else told",
        "TASKS[model.task].confidence(found.output)",
    ),
    (
        "confidence by another task",
        "TASKS[model.task].confidence(found.output)",
        'TASKS["localisation"].confidence(found.output)',
    ),
    (
        "decoded whenever a redundant output is back",
        "if run.progress.returned(ok):",
        "run.progress.returned(ok)\n        if ok:",
    ),
    ("decoded although nobody tells the policy", "self._feed(e.Decoded(at, group, confidences))", ""),
    (
        "sibling's late answer does not decode",
        "if run.progress.answered(job.place):\n                self._decode(job.group, run)",
        "run.progress.answered(job.place)",
    ),
    (
        "a group that will never be decodable leaves its members waiting",
        "if run.waiting and out_of_reach and not run.progress.decoded:",
        "if False:",
    ),
    (
        "a group given up too early: a sibling's answer is of another version",
        "run.foreign and not run.progress.reachable(len(run.waiting) - 1)",
        "run.foreign",
    ),
    (
        "a group never given up: who waits counts as a sibling",
        "run.progress.reachable(len(run.waiting) - 1)",
        "run.progress.reachable(len(run.waiting))",
    ),
    (
        "a code that cannot encode leaves its members waiting",
        "for _ in range(run.progress.out):\n            self._returned(group, ok=False, sent=False)\n"
        "        run.progress.out = 0",
        "run.progress.out = 0",
    ),
    (
        "a group without workers leaves its members waiting",
        "for _ in range(shape.inputs):\n                self._returned(group, ok=False, sent=False)",
        "",
    ),
    (
        "a group without workers gives back one of its r tokens",
        "for _ in range(shape.inputs):\n",
        "for _ in range(1):\n",
    ),
    (
        "a group of another shape than the code is encoded",
        "if code is None or code.shape != shape or not jobs:",
        "if code is None or not jobs:",
    ),
    (
        "a redundant run that found no worker costs a token",
        "run.progress.returned(ok=False)\n                self._returned(group, ok=False, sent=False)",
        "run.progress.returned(ok=False)\n                self._returned(group, ok=False)",
    ),
    (
        "a redundant run that found no worker is still awaited",
        "run.progress.returned(ok=False)\n                self._returned(group, ok=False, sent=False)",
        "self._returned(group, ok=False, sent=False)",
    ),
    ("a redundant run goes to a worker of another model", "or worker.info != self._models[row] or", "or"),
    ("a group encoded before the code changed is sent to its workers", " or run.code is not self.code:", ":"),
    (
        "cancelled groups run on",
        "for call in list(run.calls.values()):\n            call.cancel()\n        self",
        "self",
    ),
    ("cancelled groups are encoded and sent", "if run.encoding:\n            run.encoding.cancel()", ""),
    (
        "groups are never forgotten: nothing more can come",
        "if run.over and self._runs.get(group) is run:",
        "if False:",
    ),
    (
        "groups are never forgotten: a member that ended is awaited",
        "if (run := self._runs.get(job.group)) and job.place is not None:\n            run.waiting.discard(job.place)",
        "if (run := self._runs.get(job.group)) and job.place is not None:",
    ),
    (
        "a group is forgotten though siblings may still answer",
        "return not self.calls and not self.encoding and (self.progress.decoded or not self.waiting)",
        "return not self.calls and not self.encoding",
    ),
    (
        "redundant runs live no longer than the most hurried member",
        "max(job.expires for job in run.jobs.values())",
        "min(job.expires for job in run.jobs.values())",
    ),
    (
        "as many groups at once as the first row has workers",
        "min((pool.ready for pool in self._pools), default=0)",
        "max((pool.ready for pool in self._pools), default=0)",
    ),
    (
        "accept threshold of the model ignored",
        "errors, accept = error_steps(models[0]), models[0].accept_threshold",
        "errors, accept = error_steps(models[0]), 0.0",
    ),
    ("redundant workers not judged again when the base changes", "base.listeners.append(pool.review)", ""),
    ("large groups encoded on the event loop", "if code.quick(inputs):", "if True:"),
    ("small groups handed to another thread", "if code.quick(inputs):", "if False:"),
    (
        "members in the order of their arrival, not of their places",
        "[job.input if (job := jobs.get(place)) else None for place in range(shape.members)]",
        "[job.input for job in jobs.values()] + [None] * (shape.members - len(jobs))",
    ),
    (
        "decoded answers told to be of the base",
        "source = run.code.source",
        'source = run.code.source.__class__("s_cnn")',
    ),
    ("a code that cannot decode raises", 'logger.exception("a group could not be decoded")', "raise"),
    (
        "a code that cannot encode raises",
        'logger.exception("a group could not be encoded")\n                self._give_up(group, run)',
        "raise",
    ),
    (
        "queue and inference time swapped: of redundant runs",
        "run.queue_s, run.inference_s = outcome.queue_s, outcome.inference_s",
        "run.queue_s, run.inference_s = outcome.inference_s, outcome.queue_s",
    ),
]
_FITTING: list[tuple[str, ...]] = [
    (
        "base version not compared: when workers are judged",
        'if its.base not in ("", base.version):',
        "if False:",
    ),
    ("labels not compared: when workers are judged", "if info.labels != base.labels:", "if False:"),
    ("task not compared: when workers are judged", "if info.task != base.task:", "if False:"),
    (
        "shape of the input not compared: when workers are judged",
        "if info.size != base.size:",
        "if False:",
    ),
    ("collage of another grid than the operator's", "if grid not in (None, its.k):", "if False:"),
    (
        "collage whose cells do not fit",
        "if info.size < its.k or -(-info.size // its.k) > base.size:",
        "if False:",
    ),
    ("collage of one cell", "if its.k < 2:", "if its.k < 1:"),
    (
        "a model without a code taken for a redundant one",
        'return f"it is a {info.kind} without a code, expected the model of a redundant input"',
        "return None",
    ),
    ("row order ignored: when workers are judged", "if its.row != row:", "if False:"),
    (
        "parity weights of the wrong row",
        "tuple(each.weights for each in its),",
        "tuple(each.weights for each in its[::-1]),",
    ),
    (
        "rows of other codes accepted",
        "if len({(each.name, each.members, each.inputs, each.keys, each.base) for each in its}) > 1:",
        "if False:",
    ),
    ("fewer redundant inputs than the code has", "if first.inputs != len(its):", "if False:"),
    (
        "detection threshold of the operator ignored",
        "first.detection_threshold if threshold is None else threshold",
        "first.detection_threshold",
    ),
]
MUTANTS = [
    *(Mutant(what, "frontend/coding.py", *made) for what, *made in _CODING),
    *(Mutant(what, "frontend/fitting.py", *made) for what, *made in _FITTING),
]
