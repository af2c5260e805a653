"""What to do about stragglers, and which worker to ask: pure decisions, without asyncio, gRPC, clocks or logs."""

from frontend.policy.admission import MAX_BYTES, Admission
from frontend.policy.balance import Balancer
from frontend.policy.ejection import Ejection
from frontend.policy.machine import Policy
from frontend.policy.rules import POLICIES, Rules
from frontend.policy.shares import Shares

__all__ = ["MAX_BYTES", "POLICIES", "Admission", "Balancer", "Ejection", "Policy", "Rules", "Shares"]
