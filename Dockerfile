# One image per service: docker build --target frontend | s-cnn | collage-cnn | worker | load .   (make images builds them)
# BASE is any Linux with Python 3.11 or later and its venv module. Serving needs no torch.
ARG BASE=python:3.12-slim

# The servers run from their sources, in /app; the environment, in /opt/collage, has what they import and finds them there.
FROM ${BASE} AS sources
WORKDIR /app
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE ./
COPY frontend frontend
COPY worker worker
COPY encoder encoder
COPY proto proto
RUN python3 -m venv /build \
 && python3 -m venv --without-pip /opt/collage \
 && python3 -m compileall -q .

FROM sources AS frontend-env
RUN /build/bin/pip --python /opt/collage/bin/python install --no-cache-dir -c constraints.txt --editable ".[frontend]"

FROM sources AS worker-env
RUN /build/bin/pip --python /opt/collage/bin/python install --no-cache-dir -c constraints.txt --editable ".[worker]"

FROM ${BASE} AS runtime
# A read-only file system cannot keep bytecode, and log lines should appear at once.
ENV PATH=/opt/collage/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY --from=sources /app /app
WORKDIR /
USER 65532:65532
EXPOSE 50051 9090

FROM runtime AS frontend
COPY --from=frontend-env /opt/collage /opt/collage
ENTRYPOINT ["python", "-m", "frontend"]

FROM runtime AS worker
COPY --from=worker-env /opt/collage /opt/collage
ENTRYPOINT ["python", "-m", "worker"]

# To serve another model: make images MODEL=... (or S_CNN=...), which puts it into FOLDER. Its sidecar and its data go with
# it, if their names begin with the model's: NAME.onnx.json, NAME.onnx.data.
FROM worker AS s-cnn
ARG FOLDER=models/zoo
ARG MODEL=fashion-mnist-s-cnn.onnx
ENV COLLAGE_MODEL=/models/${MODEL}
COPY ${FOLDER}/${MODEL}* /models/

FROM worker AS collage-cnn
ARG FOLDER=models/zoo
ARG MODEL=fashion-mnist-collage-3x3.onnx
ENV COLLAGE_MODEL=/models/${MODEL}
COPY ${FOLDER}/${MODEL}* /models/

# Traffic to try a cluster out: the client sends the sample images without end. Arguments go to it (--ca FILE).
FROM runtime AS load
COPY --from=frontend-env /opt/collage /opt/collage
COPY samples /samples
ENV FRONTEND=127.0.0.1:50051
ENTRYPOINT ["sh", "-c", "while :; do collage predict --json --address \"$FRONTEND\" \"$@\" /samples/*/*/*.png >/dev/null || sleep 1; done", "load"]
