#!/bin/sh
# With curl alone, by HTTP: sh examples/curl.sh 127.0.0.1:8080 shoe.png
# The body is the file. A frontend with --token-file also wants: -H "Authorization: Bearer TOKEN"
curl --silent --show-error --fail-with-body -T "$2" "http://$1/v1/predict?top_k=3&timeout_s=5"
