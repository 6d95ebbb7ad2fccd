# The page of `semcast web`. It wants a password: mount a file with one at /run/secrets/semcast_password.
#   docker build -t semcast . && docker run --rm -p 8000:8000 -v ./password:/run/secrets/semcast_password:ro semcast
FROM python:3.12-slim

COPY . /source
RUN pip install --no-cache-dir "/source[web]" && rm -rf /source \
    && useradd --no-create-home --uid 10001 semcast
USER semcast
WORKDIR /tmp
ENV PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
STOPSIGNAL SIGINT
ENTRYPOINT ["semcast", "web", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--password-file", "/run/secrets/semcast_password"]
