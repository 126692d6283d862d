# agent-oncall: exporter, controller, pager and simulated agents, by the command they are started with.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION
RUN pip install --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /src
ENV UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/agent-oncall UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
COPY pyproject.toml uv.lock README.md ./
# The packages first: a change of our own code does not fetch them again.
RUN uv sync --frozen --no-dev --extra all --no-install-project
COPY . .
RUN uv sync --frozen --no-dev --extra all --no-editable

FROM ${PYTHON_IMAGE}
# A volume that is mounted here for the first time takes over this ownership: no service has to start as root for it.
RUN for folder in agent-oncall otelcol; do install -d -o 10001 -g 10001 -m 0700 "/var/lib/$folder"; done
COPY --from=build /opt/agent-oncall /opt/agent-oncall
ENV PATH=/opt/agent-oncall/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/agent-oncall
ENTRYPOINT ["agent-oncall"]
CMD ["serve", "--otlp-grpc", "0.0.0.0:4317", "--otlp-http", "0.0.0.0:4318", "--metrics", "0.0.0.0:9464", "--journal", "/var/lib/agent-oncall/journal"]
EXPOSE 4317 4318 9464
