#!/bin/sh
# The command: sh examples/command.sh 127.0.0.1:50051 *.png
address=$1
shift
collage health --address "$address"
collage predict --address "$address" --top-k 2 "$@"
# One JSON object per file, for other programs.
collage predict --address "$address" --json "$@" | python3 -c '
import json, sys

for line in sys.stdin:
    answer = json.loads(line)
    print(answer["file"], answer["source"], answer["classes"][0]["label"])
'
