"""Wrong versions of the budget of accuracy: what answers cost, who may spend, and what audits change."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_FILES: dict[str, list[tuple[str, ...]]] = {
    "frontend/policy/accuracy.py": [
        ("early answers spend what is kept for stragglers", "(self.most / 2 if early else 0.0)", "0.0"),
        ("an answer may cost all that is left", "_CAUTION * self.cost(confidence)", "self.cost(confidence)"),
        ("costs without their standard error", "(step.errors + step.standard_error)", "step.errors"),
        ("an answer that costs more than one error", "min(1.0, self.scale", "max(0.0, self.scale"),
        ("a burst without end", "min(self.most, self.left + self.rate)", "self.left + self.rate"),
        ("a debt without end", "max(self.left - cost, -self.most)", "self.left - cost"),
        ("answers are free", "self.left = max(self.left - cost, -self.most)", ""),
        ("a budget of nothing that begins with half of a burst", "most / 2 if rate else 0.0", "most / 2"),
        ("free answers refused where little is left", "<= max(0.0, left)", "<= left"),
        ("audits scale without a prior", "(_PRIOR + self._found) / (_PRIOR + self._expected)", "self._found + 1"),
        ("audits that agree count as differences", "self._found += not agrees", "self._found += agrees"),
        ("audits of long ago count for ever", "if max(self._expected, self._found) > _KEPT:", "if False:"),
        ("audits of another table are kept", "            self._expected = self._found = 0.0\n\n", "\n"),
        ("audits are forgotten with every message of workers", "if steps != self.steps:", "if True:"),
        ("the cost of the least sure", "below[-1] if below", "below[0] if below"),
        (
            "an answer at the edge of a step costs as one below",
            "step.confidence <= confidence",
            "step.confidence < confidence",
        ),
    ],
    "frontend/policy/machine.py": [
        ("requests earn no accuracy", "        self._flights.accuracy.earn()\n", ""),
        (
            "stragglers get answers that are not paid",
            " and self._flights.paid(request):\n            self._answer",
            ":\n            self._answer",
        ),
        (
            "early answers paid like those of stragglers",
            "self._flights.paid(request, early=True)",
            "self._flights.paid(request)",
        ),
        (
            "a replica waits for an answer that is not paid",
            "coded = self._flights.paid(request)",
            "coded = self._flights.confidence(request) is not None",
        ),
        ("patience that ends pays whatever it costs", "elif timer is e.Timer.UNSURE:", "elif False:"),
        (
            "audits do not reach the budget of accuracy",
            "self._flights.accuracy.audited(confidence, agrees=agrees)",
            "pass",
        ),
        ("the table of errors ignored", "        self._flights.accuracy.use(event.errors)\n", ""),
    ],
    "frontend/metrics.py": [
        ("unsure answers not counted", "if not sure:\n            self.unsure.inc()", ""),
        ("early answers counted as those of stragglers", '"early" if early else "straggler"', '"straggler"'),
    ],
    "frontend/dispatch.py": [
        ("audits are not told to the policy", "self._feed(e.Audited(at, job.coded.confidence or 0.0, agree))", "pass"),
    ],
    "frontend/recorder.py": [
        ("a recorded table of errors that stays a list", 'if "errors" in content:', "if False:"),
    ],
    "models/calibrate.py": [
        (
            "surer answers that cost more",
            "while len(pools) > 1 and _mean(pools[-2]) <= _mean(pools[-1]):",
            "while False:",
        ),
        ("answers, not images, as the unit of a standard error", "np.bincount(images, lost - mean)", "lost - mean"),
        ("hundreds of answers that agree leave no doubt", "((residuals**2).sum()) + 1)", "((residuals**2).sum()))"),
        ("a better collage-cnn earns accuracy", "max(0.0, float(mean))", "float(mean)"),
        ("answers the collage-cnn alone has right do not count", " - (coded.prediction == label)", ""),
        ("a sidecar's other fields are lost", "json.loads(file.read_text()) if file.exists() else {}", "{}"),
    ],
    "proto/collage/specs.py": [
        ("error rates in any order", "one.confidence < other.confidence and", ""),
        ("error rates that rise", "and one.errors >= other.errors", ""),
        ("error rates that begin anywhere", "or (rates and rates[0].confidence)", ""),
        ("k against the code's k", 'if "k" in content and collage and code.k != k:', "if False:"),
        ("error rates without end", "len(rates) > MAX_ERROR_RATES or ", ""),
    ],
    "proto/collage/model_info.py": [
        ("errors stay off the wire", "            errors=errors_to_proto(self.errors),\n", ""),
        ("errors are lost in the file", 'if self.errors:', "if False:"),
    ],
}  # fmt: skip
MUTANTS = [Mutant(f"accuracy: {what}", file, *made) for file, mutants in _FILES.items() for what, *made in mutants]
