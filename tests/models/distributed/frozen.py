"""Two processes in a ring, of which the second falls silent after the first sum; run by ``test_team.py``."""

from __future__ import annotations

import os
import signal

import torch

from models.distributed.addition import total
from models.distributed.launch import joined
from models.distributed.links import ProcessLink
from models.distributed.ring import RankLost, Ring

with joined() as link:
    assert total(torch.ones(5), Ring(link)).tolist() == [2] * 5
    if link.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        total(torch.ones(5), Ring(ProcessLink(timeout_s=0.5)))
    except RankLost as error:
        raise SystemExit(f"lost: {error}") from None
