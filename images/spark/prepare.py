"""Runs a job on Spark while the image is built, driver and executor as in a cluster, and notes which classes they load.

Kubernetes is a few answers of this program's own: a pod that the driver asks for is started as a process. It proves,
too, that nothing was left out of the image that a run needs. `java -Xshare:dump` then prepares the classes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import parquet

DRIVER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "driver", "namespace": "default", "uid": "driver", "labels": {"role": "driver"}},
    "spec": {"containers": [{"name": "almanac", "image": "almanac"}]},
    "status": {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "almanac", "ready": True, "state": {"running": {}}}],
    },
}

JOB = {
    "apiVersion": "almanac.dev/v1alpha1",
    "kind": "ForecastJob",
    "metadata": {"name": "prepare"},
    "spec": {
        "source": {"uri": "{folder}/data.parquet", "columns": {"entity": "entity", "time": "time", "value": "value"}},
        "output": {"uri": "{folder}/out"},
        "engine": "spark",
        "horizon": 7,
    },
}


class Pods(BaseHTTPRequestHandler):
    """The part of the Kubernetes API that a driver of Spark uses."""

    protocol_version = "HTTP/1.1"
    pods: ClassVar[dict[str, dict[str, Any]]] = {"driver": DRIVER}
    processes: ClassVar[list[subprocess.Popen[bytes]]] = []
    executor_options: ClassVar[str] = ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if "watch=true" in url.query:
            self._watch()
        elif url.path.endswith("/pods"):
            executors = [one for name, one in self.pods.items() if name != "driver"]
            self._answer({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": executors})
        elif (name := url.path.rsplit("/", 1)[1]) in self.pods:
            self._answer(self.pods[name])
        else:
            self._answer({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": []})

    def do_POST(self) -> None:
        pod = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pod["metadata"] |= {"uid": pod["metadata"]["name"], "creationTimestamp": "2000-01-01T00:00:00Z"}
        pod["status"] = DRIVER["status"]
        self.pods[pod["metadata"]["name"]] = pod
        (container,) = pod["spec"]["containers"]
        given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        own = {"SPARK_EXECUTOR_POD_IP": "127.0.0.1", "SPARK_EXECUTOR_POD_NAME": pod["metadata"]["name"]}
        local = {"SPARK_LOCAL_DIRS": tempfile.mkdtemp(), "SPARK_SHARED_CLASSES": self.executor_options}
        environment = os.environ | given | own | local
        self.processes.append(subprocess.Popen(["/opt/entrypoint.sh", "executor"], env=environment))
        self._answer(pod, 201)

    def do_PATCH(self) -> None:
        self._answer(self.pods[urlsplit(self.path).path.rsplit("/", 1)[1]])

    def do_DELETE(self) -> None:
        self._answer({"apiVersion": "v1", "kind": "Status", "status": "Success"})

    def _watch(self) -> None:
        """Agree to a WebSocket, on which nothing ever happens."""
        key = f"{self.headers['Sec-WebSocket-Key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()
        accepted = hashlib.sha1(key, usedforsecurity=False)
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accepted.digest()).decode())
        self.end_headers()
        self.close_connection = True
        self.rfile.read()

    def _answer(self, body: dict[str, Any], code: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Says nothing."""


def main(classes: Path) -> None:
    """Run, and write the names of all classes that were loaded to a file."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pods)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = Path(tempfile.mkdtemp())
    Pods.executor_options = f"-Xshare:off -XX:DumpLoadedClassList={folder}/executor"
    (folder / "template.json").write_text(json.dumps(DRIVER | {"metadata": {}, "status": {}}))
    conf = {
        "spark.master": f"k8s://http://127.0.0.1:{server.server_port}",
        "spark.submit.deployMode": "client",
        "spark.authenticate": "true",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "512m",
        "spark.executor.instances": "1",
        "spark.executor.memory": "512m",
        "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
        "spark.decommission.enabled": "true",
        "spark.storage.decommission.enabled": "true",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.kubernetes.driver.pod.name": "driver",
        "spark.kubernetes.driver.ownPersistentVolumeClaim": "false",
        "spark.kubernetes.driver.reusePersistentVolumeClaim": "false",
        "spark.kubernetes.driver.service.deleteOnTermination": "false",
        "spark.kubernetes.container.image": "almanac",
        "spark.kubernetes.executor.disableConfigMap": "true",
        "spark.kubernetes.executor.podTemplateFile": f"{folder}/template.json",
        "spark.kubernetes.executor.podTemplateContainerName": "almanac",
    }
    (folder / "spark-defaults.conf").write_text("".join(f"{name}={value}\n" for name, value in conf.items()))
    options = f"-Xshare:off -XX:DumpLoadedClassList={folder}/driver"
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"  # a build has no name of its own
    environment = {"SPARK_CONF_DIR": str(folder), "SPARK_SHARED_CLASSES": options}
    (folder / "job.json").write_text(json.dumps(JOB).replace("{folder}", str(folder)))
    days = [date(2000, 1, 1) + timedelta(days=day) for day in range(60)]
    series = {f"e{one}": one + 2 for one in range(20)}
    rows = [{"entity": one, "time": day, "value": day.day % length} for one, length in series.items() for day in days]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "data.parquet")
    command = [
        sys.executable,
        "-m",
        "almanac_jobs",
        "job.json",
        "--run-id",
        "20000101-000000-000000",
        "--termination-log",
        "report.json",
    ]
    subprocess.run(command, check=True, cwd=folder, env=os.environ | environment)
    for process in Pods.processes:
        process.wait(60)
    loaded = [line for name in ("driver", "executor") for line in (folder / name).read_text().splitlines()]
    classes.write_text("\n".join(dict.fromkeys(loaded)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
