#!/bin/sh
# What runs in a container of this image: `executor` is one executor of a Spark cluster, as Spark's own pods ask for it;
# anything else is a command, such as a driver's.
set -eu

# Hadoop asks for the name of the user, whom a cluster may have given a number of its own.
if ! getent passwd "$(id -u)" >/dev/null; then
  echo "almanac:x:$(id -u):$(id -g)::/tmp:/bin/false" >/tmp/passwd
  cp /etc/group /tmp/group
  export LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/tmp/group
fi

[ "${1:-}" = executor ] || exec "$@"

# Options may hold blanks and quotes: each variable is one option, passed on as it is.
set --
for name in $(env | sed -n 's/^SPARK_JAVA_OPT_\([0-9][0-9]*\)=.*/\1/p' | sort -n); do
  eval "set -- \"\$@\" \"\${SPARK_JAVA_OPT_${name}}\""
done
exec "$JAVA_HOME/bin/java" ${SPARK_SHARED_CLASSES:-} "$@" \
  -Xmx"$SPARK_EXECUTOR_MEMORY" \
  -cp "${SPARK_CLASSPATH:+$SPARK_CLASSPATH:}$(cat /opt/spark-classes)" \
  org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
  --driver-url "$SPARK_DRIVER_URL" \
  --executor-id "$SPARK_EXECUTOR_ID" \
  --cores "$SPARK_EXECUTOR_CORES" \
  --app-id "$SPARK_APPLICATION_ID" \
  --hostname "$SPARK_EXECUTOR_POD_IP" \
  --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" \
  --podName "$SPARK_EXECUTOR_POD_NAME"
