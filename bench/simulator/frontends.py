"""What a simulated frontend knows: its policy, its balancers, its calls and the groups whose code is at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.simulator.stations import StationCall
from encoder.code import GroupShape
from frontend.policy.balance import Balancer
from frontend.policy.ejection import Ejection
from frontend.policy.groups import Progress
from frontend.policy.machine import Policy
from frontend.policy.rules import Rules


class CodedGroup:
    """A group whose code is at work: its members by place, and which outputs are there."""

    def __init__(self, members: Mapping[int, int], shape: GroupShape) -> None:
        self.members, self.progress = members, Progress(shape)

    @property
    def lacking(self) -> dict[int, int]:
        """Members without an own answer, by place."""
        return {place: member for place, member in self.members.items() if place not in self.progress.own}


class SimulatedFrontend:
    """One frontend process."""

    def __init__(self, rules: Rules, ejection: Ejection | None, seed: int, inputs: int) -> None:
        self.policy = Policy(rules)
        self.s_cnn = Balancer(ejection, seed)
        self.coded = [Balancer(ejection, seed) for _ in range(inputs)]
        self.calls: dict[tuple[int, ...], StationCall] = {}
        self.tried: dict[int, list[str]] = {}
        self.groups: dict[int, CodedGroup] = {}  # that are not decodable yet
        self.places: dict[int, tuple[int, int]] = {}  # group and place by request, where own answers count


@dataclass(slots=True, eq=False)
class CallContext:
    """The purpose of a call: an attempt, key (request, attempt), or a redundant run of a group, key (id, row, 0)."""

    frontend: SimulatedFrontend
    balancer: Balancer
    key: tuple[int, ...]
    group: CodedGroup | None = None
