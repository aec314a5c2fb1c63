{{- define "almanac.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of the release, with the chart's in it. The operator's objects end in -operator. */}}
{{- define "almanac.fullname" -}}
{{- $name := include "almanac.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "almanac.operator" -}}
{{- include "almanac.fullname" . }}-operator
{{- end -}}

{{- define "almanac.selector" -}}
app.kubernetes.io/name: {{ include "almanac.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "almanac.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "almanac.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: almanac
{{- end -}}

{{- define "almanac.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "almanac.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: must name an account, since serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* (list $ image): repository:tag, repository@digest or repository:tag@digest. */}}
{{- define "almanac.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $tag := ternary $image.tag (default $root.Chart.AppVersion $image.tag) (not (empty $image.digest)) -}}
{{- $image.repository }}{{ with $tag }}:{{ . }}{{ end }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{/* The plural names of the kinds of job, from their definitions. */}}
{{- define "almanac.kinds" -}}
{{- $kinds := list -}}
{{- range $path, $_ := .Files.Glob "files/crds/almanac.dev_*.yaml" -}}
{{- $kinds = append $kinds ($.Files.Get $path | fromYaml).spec.names.plural -}}
{{- end -}}
{{- $kinds | toJson -}}
{{- end -}}

{{/* What the operator may do, in a namespace or in all: the one list of its rights. */}}
{{- define "almanac.rules" -}}
{{- $kinds := include "almanac.kinds" . | fromJsonArray -}}
{{- $status := list }}{{ $finalizers := list -}}
{{- range $kinds -}}
{{- $status = append $status (printf "%s/status" .) }}{{ $finalizers = append $finalizers (printf "%s/finalizers" .) -}}
{{- end -}}
- apiGroups: [almanac.dev]
  resources: {{ $kinds | toJson }}
  verbs: [get, list, watch]
- apiGroups: [almanac.dev]
  resources: {{ $status | toJson }}
  verbs: [patch]
# To own objects, where the cluster asks for it (OwnerReferencesPermissionEnforcement, as on OpenShift).
- apiGroups: [almanac.dev]
  resources: {{ $finalizers | toJson }}
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- if .Values.spark.enabled }}
# For runs on Spark: whoever makes a Role must hold what it grants.
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [create, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [create, get, list, watch, patch, delete, deletecollection]
{{- end }}
{{- if .Values.dask.enabled }}
# For runs on Dask: the cluster, and who may talk to it.
- apiGroups: [kubernetes.dask.org]
  resources: [daskclusters]
  verbs: [create, get, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [create, delete]
{{- end }}
{{- end -}}

{{/* The operator's settings by their names in operator/almanac/settings.py, but for those that come from its pod. */}}
{{- define "almanac.settings" -}}
image: {{ include "almanac.image" (list . .Values.image) }}
spark_image: {{ include "almanac.image" (list . .Values.spark.image) }}
dask_image: {{ include "almanac.image" (list . .Values.dask.image) }}
service_account: {{ .Values.jobs.serviceAccount.name | quote }}
cpu: {{ .Values.jobs.cpu | quote }}
memory: {{ .Values.jobs.memory | quote }}
namespaces: {{ join "," .Values.watch.namespaces | quote }}
lease: {{ ternary (include "almanac.operator" .) "" .Values.leaderElection.enabled | quote }}
metrics_port: {{ .Values.metrics.port | quote }}
log_level: {{ .Values.log.level | quote }}
{{- end -}}
