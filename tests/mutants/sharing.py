"""Wrong versions of what adds gradients up, and of training by several processes."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "models/distributed/ring.py",
        [
            ("a chunk is not added", "            plus(self._chunks[", "            torch.ones_like(self._chunks["),
            ("the last chunk does not go round", "last = 2 * (self.size - 1) - 1", "last = 2 * (self.size - 1) - 2"),
            ("bytes in elements", "data.numel() * data.element_size()", "data.numel()"),
            ("the smallest value", "torch.maximum(mine, theirs, out=mine)", "torch.minimum(mine, theirs, out=mine)"),
            ("all encoded before any is sent", "for number, make in enumerate(segments)]",
             "for number, make in enumerate([(lambda it=it: it) for it in [make() for make in segments]])]"),
        ],
    ),
    (
        "models/distributed/addition.py",
        [
            ("the sum for the mean", "total(gradient, ring, self._dtype).div_(ring.size)",
             "total(gradient, ring, self._dtype)"),
            ("what was sent is kept", "        wanted[places] = 0\n", ""),
            ("the smallest elements", "wanted.abs().topk(count)", "wanted.abs().neg().topk(count)"),
        ],
    ),
    (
        "models/distributed/powersgd.py",
        [
            ("factors that are not orthogonal", "left = [torch.linalg.qr(p).Q for p in left]", "pass"),
            ("the approximation is kept", "matrix -= approximate", "matrix.copy_(approximate)"),
        ],
    ),
    (
        "models/distributed/gradiveq.py",
        [
            ("directions of least variance", "vectors.flip(1)[:, :used]", "vectors[:, :used]"),
            ("coefficients without the mean taken off", "codes = [(own - basis.mean) @ basis.u",
             "codes = [own @ basis.u"),
            ("directions are never made again", "since > 0 and place == cycle.lag", "False and place == cycle.lag"),
            ("what lies outside is forgotten", "if self.cycle.feedback:\n                told",
             "if False:\n                told"),
            ("as many directions as may be", "used = max(1, min(enough, cycle.most))", "used = cycle.most"),
            (
                "rank 0 keeps looking at old slices",
                "        self._clear()\n        return Basis(",
                "        return Basis(",
            ),
        ],
    ),
    (
        "models/distributed/quantise.py",
        [
            ("levels that overflow in the sum", "// ring.size", "// 1"),
            ("a scale for all directions", "code.abs().amax(0)", "code.abs().amax().repeat(code.shape[1])"),
            ("rounding down only", "(scaled + torch.rand_like(scaled)).floor()", "scaled.floor()"),
            ("two numbers in the wrong order", "torch.stack((both & 15, both >> 4), 1)",
             "torch.stack((both >> 4, both & 15), 1)"),
        ],
    ),
    (
        "models/distributed/team.py",
        [
            ("every rank takes the first part", "[self.ring.rank]", "[0]"),
            ("statistics of one rank only", "total(_joined(statistics), self.ring).div_(self.ring.size)",
             "_joined(statistics)"),
        ],
    ),
    (
        "models/distributed/links.py",
        [
            ("data that change while they are sent", "put(data.clone())", "put(data)"),
        ],
    ),
]  # fmt: skip
MUTANTS = [Mutant(f"shared training: {what}", file, *made) for file, mutants in _MADE for what, *made in mutants]
