"""A batch with Triton's client: python examples/open_inference.py 127.0.0.1:50051 *.png

Install it with `pip install tritonclient[grpc]`; it needs nothing of this project. Every row of the batch is a request
of its own in the cluster, protected like the others. The parameters of the response say where each row came from.
"""

import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

address, *files = sys.argv[1:]
with triton.InferenceServerClient(address) as client:
    (model,) = client.get_model_repository_index().models
    images = triton.InferInput("image", [len(files)], "BYTES")
    images.set_data_from_numpy(np.array([Path(file).read_bytes() for file in files], object))
    best = triton.InferRequestedOutput("probabilities", class_count=1)
    result = client.infer(model.name, [images], outputs=[best], client_timeout=5.0)

for file, row in zip(files, result.as_numpy("probabilities"), strict=True):
    probability, _, label = row[0].decode().split(":")
    print(f"{file}: {label} ({float(probability):.1%})")
for name, value in sorted(result.get_response().parameters.items()):
    print(name, getattr(value, value.WhichOneof("parameter_choice")))
