# docker build -t detox-tune .
# docker run --gpus all --shm-size 8g -v detox-cache:/cache -v detox-work:/work detox-tune search mt5_base
FROM python:3.12-slim
# torch's wheels bring CUDA; the machine needs a driver and NVIDIA's container toolkit.
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir .
# Downloads and pocket bases go to /cache, runs to /work/results.
ENV HF_HOME=/cache/huggingface DETOX_TUNE_CACHE=/cache/detox_tune
RUN useradd --create-home detox && mkdir /cache /work && chown detox /cache /work
USER detox
VOLUME /cache /work
WORKDIR /work
ENTRYPOINT ["detox-tune"]
