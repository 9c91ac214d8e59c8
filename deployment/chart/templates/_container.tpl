{{/* The parts that a Deployment and a Knative Service have in common. */}}

{{- define "wasmbox.labels" -}}
app.kubernetes.io/name: wasmbox
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Those by which Prometheus selects. */}}
{{- define "wasmbox.monitoringLabels" -}}
{{ include "wasmbox.labels" . }}
{{- with .Values.metrics.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "wasmbox.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Environment: what the manifests decide, then `settings`, which may decide otherwise. */}}
{{- define "wasmbox.environment" -}}
{{- $knative := hasPrefix "knative" .Values.workload }}
{{- $settings := dict "FUNCTIONS_DIR" "/functions" "CACHE_DIR" "/var/cache/wasmbox/native" "LOG_FORMAT" "json" }}
{{- if .Values.uploads.enabled }}
{{- if $knative }}{{ fail "uploads.enabled takes workload=deployment: Knative leads nobody to the admin port" }}{{ end }}
{{- $_ := set $settings "UPLOAD_TOKEN_FILE" "/etc/wasmbox/uploads/token" }}
{{- end }}
{{- if .Values.runtimeClass.name }}
{{- /* Without CPU limits of invocations the box is not to start. */}}
{{- $_ := set $settings "ENABLE_CGROUPS" "true" }}
{{- end }}
{{- if $knative }}
{{- $_ := set $settings "MAX_INVOCATION_TIMEOUT" (printf "%ds" (int .Values.knative.timeoutSeconds)) }}
{{- $_ := set $settings "DRAIN_TIMEOUT" (printf "%ds" (sub (int .Values.knative.timeoutSeconds) 5)) }}
{{- else }}
{{- $_ := set $settings "DRAIN_TIMEOUT" (printf "%ds" (int .Values.drainSeconds)) }}
{{- end }}
{{- if eq .Values.workload "knative-fork" }}
{{- /* The box decides who waits, and for what. */}}
{{- $_ := set $settings "QUEUE_DEPTH_RESOURCE_UNITS" (toString (int64 .Values.knative.fork.queueDepth)) }}
{{- with .Values.knative.fork.resourceUtilizationThreshold }}
{{- $_ := set $settings "RESOURCE_UTILIZATION_THRESHOLD" (toString .) }}
{{- end }}
{{- else if $knative }}
{{- /* No queue-proxy of the stock listens for reports. */}}
{{- $_ := set $settings "QP_HOST" "none" }}
{{- end }}
{{- range $name, $value := merge (dict) .Values.settings $settings }}
- name: {{ $name }}
  {{- /* A number of a values file is a floating-point number, of which large ones would be written with an exponent. */}}
  value: {{ if and (kindIs "float64" $value) (eq (floor $value) $value) }}{{ int64 $value | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
{{- if .Values.cgroupClaim }}
- name: POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
{{- end }}
{{- end }}

{{- define "wasmbox.container" -}}
name: wasmbox
image: {{ include "wasmbox.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve]
env:
  {{- include "wasmbox.environment" . | trim | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
# What the Pod Security Standard "restricted" asks for, and a read-only root.
securityContext:
  {{- if .Values.cgroupClaim }}
  # The node's cgroups belong to root.
  runAsUser: 0
  {{- else }}
  runAsNonRoot: true
  runAsUser: 65532
  {{- end }}
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
  - name: functions
    mountPath: /functions
    readOnly: {{ not .Values.uploads.enabled }}
    {{- with .Values.functions.subPath }}
    subPath: {{ . }}
    {{- end }}
  # The box makes a directory of its own in it: compiled code is not for others to write.
  - name: cache
    mountPath: /var/cache/wasmbox
  - name: tmp
    mountPath: /tmp
  {{- if .Values.uploads.enabled }}
  - name: uploads
    mountPath: /etc/wasmbox/uploads
    readOnly: true
  {{- end }}
  {{- if .Values.cgroupClaim }}
  - name: cgroup
    mountPath: /data
  {{- end }}
{{- end }}

{{- define "wasmbox.volumes" -}}
- name: functions
  {{- with .Values.functions.image }}
  {{- if .reference }}
  {{- if hasPrefix "knative" $.Values.workload }}{{ fail "functions.image takes workload=deployment: Knative has no volumes of images" }}{{ end }}
  {{- if $.Values.uploads.enabled }}{{ fail "functions.image is read-only: it does not go with uploads.enabled" }}{{ end }}
  {{- if semverCompare "<1.33-0" $.Capabilities.KubeVersion.Version }}{{ fail "functions.image takes Kubernetes 1.33 or newer: older ones make an empty directory of it" }}{{ end }}
  {{- if $.Values.functions.subPath }}{{ fail "functions.subPath is a directory of the claim: functions.image has its functions in its root" }}{{ end }}
  image:
    reference: {{ .reference | quote }}
    {{- with .pullPolicy }}
    pullPolicy: {{ . }}
    {{- end }}
  {{- else }}
  persistentVolumeClaim:
    claimName: {{ $.Values.functions.claim }}
    readOnly: {{ not $.Values.uploads.enabled }}
  {{- end }}
  {{- end }}
- name: cache
  emptyDir:
    sizeLimit: 2Gi
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- if .Values.uploads.enabled }}
- name: uploads
  secret:
    secretName: {{ .Values.uploads.secret }}
{{- end }}
{{- if .Values.cgroupClaim }}
- name: cgroup
  persistentVolumeClaim:
    claimName: {{ .Values.cgroupClaim }}
{{- end }}
{{- end }}
