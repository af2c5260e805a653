#!/bin/sh
# Without any client: sh examples/buf_curl.sh 127.0.0.1:50051 shoe.png
# buf asks the frontend's reflection for the contract, so it needs no files of ours. An image is base64 in JSON.
printf '{"image": "%s", "topK": 1}' "$(base64 -w 0 "$2")" |
  buf curl --protocol grpc --http2-prior-knowledge --data @- "http://$1/collage.v1.PredictService/Predict"
