# One image per service: docker build --target frontend | s-cnn | collage-cnn | load .   (make images builds all)
# BASE is any Linux with Python 3.11 or later and its venv module. Serving needs no torch.
ARG BASE=python:3.12-slim

FROM ${BASE} AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY frontend frontend
COPY worker worker
COPY encoder encoder
COPY proto proto
RUN python3 -m venv /build \
 && /build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM wheel AS frontend-env
COPY constraints.txt .
RUN python3 -m venv --without-pip /opt/collage \
 && /build/bin/pip --python /opt/collage/bin/python install --no-cache-dir -c constraints.txt \
    "$(echo /wheels/*.whl)[frontend]"

FROM wheel AS worker-env
COPY constraints.txt .
RUN python3 -m venv --without-pip /opt/collage \
 && /build/bin/pip --python /opt/collage/bin/python install --no-cache-dir -c constraints.txt \
    "$(echo /wheels/*.whl)[worker]"

FROM ${BASE} AS runtime
# Read-only file systems cannot keep bytecode; logs must not wait in a buffer.
ENV PATH=/opt/collage/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /
USER 65532:65532
EXPOSE 50051 9090

FROM runtime AS frontend
COPY --from=frontend-env /opt/collage /opt/collage
ENTRYPOINT ["python", "-m", "frontend"]

FROM runtime AS worker
COPY --from=worker-env /opt/collage /opt/collage
ENV COLLAGE_MODEL=/models/model.onnx
ENTRYPOINT ["python", "-m", "worker"]

# To serve another model: put it into models/zoo and add --build-arg MODEL=models/zoo/NAME.onnx.
FROM worker AS s-cnn
ARG MODEL=models/zoo/fashion-mnist-s-cnn.onnx
COPY ${MODEL} /models/model.onnx

FROM worker AS collage-cnn
ARG MODEL=models/zoo/fashion-mnist-collage-3x3.onnx
COPY ${MODEL} /models/model.onnx

# The client sends the sample images again and again, with further options as arguments (--ca FILE): to try a cluster out.
FROM runtime AS load
COPY --from=frontend-env /opt/collage /opt/collage
COPY samples /samples
ENV FRONTEND=127.0.0.1:50051
ENTRYPOINT ["sh", "-c", "while :; do collage predict --json --address \"$FRONTEND\" \"$@\" /samples/*/*/*.png >/dev/null || sleep 1; done", "load"]
