# viceversa serve in a container, without rights, on a CPU. For CUDA: --build-arg TORCH=https://download.pytorch.org/whl/cu128
FROM python:3.12-slim

ARG TORCH=https://download.pytorch.org/whl/cpu

RUN useradd --create-home --uid 10001 viceversa
WORKDIR /opt/viceversa
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src ./src
# torch comes first and from its own index, whose CPU build is a tenth of the size; constraints hold for the rest.
RUN grep '^torch==' constraints.txt > torch.txt \
    && pip install --no-cache-dir --index-url "$TORCH" -r torch.txt \
    && grep -v '^torch==' constraints.txt > others.txt \
    && pip install --no-cache-dir -c others.txt '.[serve,hub]'

USER 10001
WORKDIR /models
ENV PYTHONUNBUFFERED=1
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
ENTRYPOINT ["viceversa"]
# Models may be named: docker run ... viceversa serve --host 0.0.0.0 day2night.safetensors
CMD ["serve", "--host", "0.0.0.0"]
