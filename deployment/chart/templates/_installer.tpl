{{- define "wasmbox.installer" -}}
name: {{ .name }}
image: {{ include "wasmbox.image" .values }}
imagePullPolicy: {{ .values.Values.image.pullPolicy }}
command: [/usr/local/bin/wasmbox-installer]
args: {{ toJson (concat .command (list "--host-root" "/host" "--directory" .values.Values.installer.directory)) | replace "\",\"" "\", \"" }}
resources:
  requests: {cpu: 10m, memory: 32Mi}
  limits: {memory: 128Mi}
# It writes to the node and asks systemd to restart containerd. Less would look safer, and be the same.
securityContext:
  runAsUser: 0
  privileged: true
  readOnlyRootFilesystem: true
volumeMounts:
  - name: host
    mountPath: /host
    mountPropagation: HostToContainer
{{- end }}
