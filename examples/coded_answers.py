"""See which answers are approximate, and how sure they are: python examples/coded_answers.py 127.0.0.1:50051 shoe.png

When a worker is late, the answer may come from the code that protects its group. Such an answer is `degraded`, and it
has a confidence. Below 90 % this caller takes it as a first guess; all other answers are final.
"""

import sys
from pathlib import Path

from collage.client import Prediction, SyncClient

SURE = 0.9


def final(answer: Prediction) -> bool:
    """Whether to act on the answer."""
    return not answer.degraded or (answer.coded_confidence or 0.0) >= SURE


address, file = sys.argv[1:]
with SyncClient(address) as client:
    answer = client.predict(Path(file), timeout_s=1.0)
print("final" if final(answer) else "first guess", answer.label)
print(f"source {answer.source}, model {answer.model_name}, confidence of the code {answer.coded_confidence}")
