"""Use the generated stubs instead of the client: python examples/stubs.py 127.0.0.1:50051 shoe.png

The contract is proto/collage/v1/predict.proto, from which stubs for other languages can be generated as well.
"""

import sys
from pathlib import Path

import grpc

from collage.v1 import predict_pb2, predict_pb2_grpc

address, file = sys.argv[1:]
request = predict_pb2.PredictRequest(image=Path(file).read_bytes(), top_k=1)
with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
    response = predict_pb2_grpc.PredictServiceStub(channel).Predict(request, timeout=1.0)
print(response.classes[0].label, predict_pb2.Source.Name(response.provenance.source))
