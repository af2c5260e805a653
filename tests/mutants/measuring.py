"""Wrong versions of what measures, simulates and reports: figures of a run, offered load, virtual time, tables."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "bench/measured.py",
        [
            (
                "a group's latency is that of its fastest member",
                ".max(axis=1)\n        return",
                ".min(axis=1)\n        return",
            ),
            (
                "a failed request is right",
                "return self.prediction == self.label",
                "return self.prediction in (self.label, None)",
            ),
            ("the 99th percentile is the 95th", "(0.5, 0.95, 0.99, 0.999))", "(0.5, 0.95, 0.95, 0.999))"),
            ("percentiles of too few samples", "p999 if len(seconds) >= FOR_P999 else None", "p999"),
            ("samples that a 99.9th percentile needs", "FOR_P999 = 10_000", "FOR_P999 = 1_000"),
            (
                "accuracy of all answers as that of coded ones",
                "float(self.right[coded].mean())",
                "float(self.right.mean())",
            ),
            ("unsure cells that were not answered count", "(coded & self.unsure).mean()", "self.unsure.mean()"),
            ("accuracy available is the overall one", "float(self.available.mean())", "float(self.right.mean())"),
            ("loads by group", "self.collages / len(self.latency_s)", "self.collages / len(self.groups_s)"),
            ("replicas as collages", "self.replicas / len(self.latency_s)", "self.collages / len(self.latency_s)"),
            ("injected times stay shortened", "for record in self]) / scale", "for record in self])"),
            ("busy time stays shortened", "busy_s=busy_s / scale", "busy_s=busy_s"),
            (
                "coded answers of other codes are nobody's",
                '"PARITY": COLLAGE, "CODED": COLLAGE',
                '"PARITY": NOBODY, "CODED": NOBODY',
            ),
            ("extra load without replicas", ' + float(row["replica_load"] or 0)', ""),
            ("spread of the seeds as if they were all there are", "np.std(values, ddof=1)", "np.std(values)"),
            ("intervals of 68 percent", "spread = t * float(", "spread = float("),
            ("one degree of freedom too many", "min(len(values), 10) - 2]", "min(len(values), 9) - 1]"),
            ("slow groups are those with coded answers", "(source != S_CNN).any(axis=1)", "coded.any(axis=1)"),
        ],
    ),
    (
        "bench/samples.py",
        [
            ("images in order", "rng.permutation(len(samples)) for", "np.arange(len(samples)) for"),
            (
                "the same images for every seed",
                "rng = np.random.default_rng(seed)\n    rounds",
                "rng = np.random.default_rng(0)\n    rounds",
            ),
            ("unsure cells as good as sure ones", "np.where(sure, of_sure, of_unsure)", "of_sure"),
            (
                "labels that are no slugs",
                "slug(file.parent.name), file.read_bytes()",
                "file.parent.name.title(), file.read_bytes()",
            ),
        ],
    ),
    (
        "bench/offer/load.py",
        [
            (
                "latency from when it was sent",
                "call = do(index, member, sample, at)",
                "call = do(index, member, sample, caller.now)",
            ),
            ("a load without bound", "if unended < most else caller.give_up", ""),
            ("ended requests stay open", "unended -= 1", "pass"),
            ("what is not sent takes no time", 'started, self._timeout_s, "not sent', 'started, 0.0, "not sent'),
            ("callers without a time limit", "timeout_s=self._timeout_s)", "timeout_s=60.0)"),
            ("failures take no time", "started, self.now - started, str(error))", "started, 0.0, str(error))"),
            (
                "queue and inference time swapped: of a record",
                "queue_s=answer.queue_s,\n            inference_s=answer.inference_s",
                "queue_s=answer.inference_s,\n            inference_s=answer.queue_s",
            ),
        ],
    ),
    (
        "bench/offer/recordings.py",
        [
            ("times in the file's unit", "numbers.append(number * unit_s)", "numbers.append(number)"),
            ("latencies that are none", "if number is None or not 0 <= number < np.inf:", "if number is None:"),
            (
                "arrivals that do not rise",
                "if failures or (np.diff(times) < 0).any() or times[0] == times[-1]:",
                "if False:",
            ),
            (
                "arrivals from the start of the clock",
                "since_first: Seconds = times - times[0]",
                "since_first: Seconds = times",
            ),
            ("a failure is a latency", "if _failed(row):\n            failures += 1\n            continue", ""),
        ],
    ),
    (
        "bench/offer/workload.py",
        [
            (
                "arrivals at a steady pace",
                "np.random.default_rng((seed, 0)).exponential(together / rate, -(-count // together))",
                "np.full(-(-count // together), together / rate)",
            ),
            ("arrivals at another rate", "exponential(together / rate,", "exponential(2 * together / rate,"),
            ("workers fail while they are down", "if at >= back[index]:", "if True:"),
            ("workers only crash", "frozen = not frozen", "frozen = False"),
            ("outages in all regimes", "if not self.failing:\n            return", "if False:\n            return"),
            ("tables that are no quantile functions", "if (np.diff(p) <= 0).any() or", "if"),
            (
                "simulated workers draw by another seed",
                "return Slowdown(self.specification.format(index=index, count=count), seed, scale)",
                "return Slowdown(self.specification.format(index=index, count=count), seed + 1, scale)",
            ),
            ("a fit that is less close", "TOLERANCE = 0.003", "TOLERANCE = 0.03"),
        ],
    ),
    (
        "bench/simulator/simulate.py",
        [
            ("warm-up counted: its latencies", "measured = slice(self._measured_from, None)", "measured = slice(None)"),
            ("warm-up counted: its collages", "self.collages += first >= self._measured_from", "self.collages += 1"),
            (
                "warm-up counted: its replicas",
                "if attempt != e.PRIMARY and request >= self._measured_from:",
                "if attempt != e.PRIMARY:",
            ),
            ("warm-up counted: its computing", "self._stations.busy_s - self._warm_up_busy_s", "self._stations.busy_s"),
            (
                "warm-up counted: outages begin with it",
                "self._began + outage.at, self._crash",
                "outage.at, self._crash",
            ),
            (
                "coded answers as right as the s-cnn's",
                "np.where(source == COLLAGE, self._images.coded_right, self._images.s_cnn_right)",
                "self._images.s_cnn_right",
            ),
            ("a replica told as a first copy", "S_CNN if attempt == e.PRIMARY else REPLICA", "S_CNN"),
            (
                "latency without the caller's way",
                "self._started[request] + self.setup.caller_s",
                "self._started[request]",
            ),
            ("losers run on", "self._cancel(frontend, (request, attempt))", "pass"),
            (
                "redundant runs run on",
                "self._cancel(frontend, (group, row, 0))",
                "pass",
            ),
            (
                "collage workers as slow as s-cnns",
                "else self.model.factor",
                "else 1.0",
            ),
            (
                "encoding takes no time",
                "self._agenda.now + self.setup.encode_s, self._encoded",
                "self._agenda.now, self._encoded",
            ),
            (
                "own answers do not count for a group",
                "self._own_answer(frontend, request)\n                case",
                "pass\n                case",
            ),
            ("a crashed worker stays in use", "self._set_ready((outage.index, False))", "pass"),
            ("one frontend gets all", "self.frontends[turn % len(self.frontends)]", "self.frontends[0]"),
            (
                "policies meet other draws",
                "self.regime.slowdown(index, self.setup.workers, self.seed, scale)",
                "self.regime.slowdown(index, self.setup.workers, id(self), scale)",
            ),
        ],
    ),
    (
        "bench/simulator/stations.py",
        [
            (
                "workers run any number at once",
                "if station.current is None:\n            self._start",
                "if True:\n            self._start",
            ),
            ("queues without bound", "elif len(station.queue) < self._queue_size:", "elif True:"),
            ("the last in line first", "station.queue.popleft()", "station.queue.pop()"),
            (
                "a cancelled call holds its slot",
                "if station.current is call:\n                self._free(station)",
                "if station.current is call:\n                pass",
            ),
            ("a cancelled call waits on", "station.queue.remove(call)", "pass"),
            (
                "busy from when it was sent",
                "self._agenda.now - station.current.started_at",
                "self._agenda.now - station.current.sent_at",
            ),
            (
                "inference shorter than it can be",
                "max(self._least_s, station.slowdown.draw(call.name, call.attempt, now))",
                "station.slowdown.draw(call.name, call.attempt, now)",
            ),
            ("frozen workers answer", "if self._agenda.now < station.frozen_until:", "if False:"),
            ("calls outlive a crash", "for call in lost:", "for call in ():"),
            ("overhead holds the worker", "self._free(station)\n        if self._overhead_s:", "if self._overhead_s:"),
            (
                "actions of one moment in any order",
                "(at, next(self._order), act, subject)",
                "(at, -next(self._order), act, subject)",
            ),
            ("members with an answer are decoded", "if place not in self.progress.own}", "}"),
        ],
    ),
    (
        "bench/simulator/replay.py",
        [
            (
                "load of all workers",
                "return n / float(regime.sample.mean())",
                "return (n + 1) / float(regime.sample.mean())",
            ),
            (
                "equal resources run collages",
                "Rules.named(rival.policy if rival else policy, **limits)",
                'Rules.named("collage" if rival else policy, **limits)',
            ),
            (
                "deadline at the median",
                "float(np.quantile(regime.sample, 0.95))",
                "float(np.quantile(regime.sample, 0.5))",
            ),
        ],
    ),
    (
        "bench/report/findings.py",
        [
            (
                "a ratio of all seeds",
                "seeds = sorted(tops.keys() & bottoms.keys())",
                "seeds = sorted(tops.keys() & bottoms.keys())[:1]",
            ),
            (
                "a ratio upside down",
                "value = sum(tops[seed] for seed in seeds) / len(seeds) / bottom",
                "value = bottom / (sum(tops[seed] for seed in seeds) / len(seeds))",
            ),
            (
                "a rival at any extra load",
                'if mean(rows, "sent") <= RIVAL_LOAD * rows[0]["redundant"] / rows[0]["n"]]',
                "]",
            ),
            ("a rival at half the extra load", "RIVAL_LOAD = 1.08", "RIVAL_LOAD = 0.5"),
            (
                "the worst rival",
                'return min(allowed, key=lambda rows: mean(rows, "group_p99_s"), default=[])',
                'return max(allowed, key=lambda rows: mean(rows, "group_p99_s"), default=[])',
            ),
            ("below within the interval", "value + np.nan_to_num(spread) < 1", "value < 1"),
            ("recovery without its wrong answers", "(available & (right | ~coded).all(axis=1))", "available"),
            (
                "recovery of any right answer: of groups",
                "(available & (right == coded)).sum()",
                "(available & (right > 0)).sum()",
            ),
            (
                "the last of equal runs counts",
                'rows.setdefault(tuple(row[key] for key in (*CASE, *VARIANT, "seed")), row)',
                'rows[tuple(row[key] for key in (*CASE, *VARIANT, "seed"))] = row',
            ),
            ("records keep their shortened times", 'latencies *= row["mean_s"] / latencies.mean()', "latencies *= 1.0"),
            ("slow groups are those that failed", '(sources != "S_CNN").any(axis=1)', "(sources == None).any(axis=1)"),
        ],
    ),
    (
        "bench/runs/soak.py",
        [
            ("doubled ends are none", "return self.answered.total() - len(self.answered)", "return 0"),
            ("lost requests are none", "return self.sent - len(self.answered)", "return 0"),
            (
                "wrong labels are no problem",
                'for name in ("lost", "doubled", "wrong")',
                'for name in ("lost", "doubled")',
            ),
            ("memory may double", "GROWTH = 1.05", "GROWTH = 2.0"),
            ("tasks may stay", "if self.tasks_after > self.tasks_before:", "if False:"),
            ("descriptors may stay", "if self.descriptors_after > self.descriptors_before + DESCRIPTORS:", "if False:"),
        ],
    ),
    (
        "bench/runs/speed.py",
        [
            (
                "a ratio of the best round",
                "statistics.median(one.per_s / other.per_s for one, other in pairs)",
                "max(one.per_s / other.per_s for one, other in pairs)",
            ),
            (
                "processor time without the system's",
                "(int(fields[11]) + int(fields[12])) / CLOCK_TICKS",
                "int(fields[11]) / CLOCK_TICKS",
            ),
            ("added latency upside down", "ours_s - bare_s}", "bare_s - ours_s}"),
            ("no warm-up of a case", "await case.load(in_flight, min(1.0, seconds))", "pass"),
        ],
    ),
]
MUTANTS = [Mutant(f"bench: {what}", file, *made) for file, mutants in _MADE for what, *made in mutants]
