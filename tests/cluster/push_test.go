package cluster

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// push puts a function into a box through the API server, with the rights of the document's Role and no more.
func (c *cluster) push(t *testing.T) {
	apply(t, `
apiVersion: v1
kind: Secret
metadata: {name: pushed}
stringData: {token: 0123456789abcdef-of-the-test}
---
apiVersion: v1
kind: Service
metadata: {name: pushed}
spec: {selector: {app: pushed}, ports: [{port: 80, targetPort: 8095}]}
---
apiVersion: v1
kind: Pod
metadata: {name: pushed, labels: {app: pushed}}
spec:
  runtimeClassName: wasmbox
  automountServiceAccountToken: false
  securityContext: {fsGroup: 65532}
  containers:
    - name: box
      image: wasmbox:0.1.0
      args: [serve]
      env: [{name: FUNCTIONS_DIR, value: /functions}, {name: UPLOAD_TOKEN_FILE, value: /etc/wasmbox/uploads/token}]
      ports: [{name: admin, containerPort: 8086}]
      readinessProbe: {httpGet: {path: /ready, port: admin}, periodSeconds: 1}
      resources: {limits: {cpu: 500m, memory: 128Mi}}
      securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, runAsUser: 65532, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}
      volumeMounts: [{name: functions, mountPath: /functions}, {name: uploads, mountPath: /etc/wasmbox/uploads, readOnly: true}]
  volumes: [{name: functions, emptyDir: {}}, {name: uploads, secret: {secretName: pushed}}]
`)
	defer kubectl(t, "delete", "pod/pushed", "service/pushed", "secret/pushed", "--wait")
	text, err := os.ReadFile(document)
	check(t, err)
	role := regexp.MustCompile("(?s)```yaml\n([^`]*name: wasmbox-push\n.*?)```").FindSubmatch(text)
	if role == nil {
		t.Fatalf("%s has no Role wasmbox-push", document)
	}
	apply(t, string(role[1]))
	defer kubectl(t, "delete", "role", "wasmbox-push")
	kubectl(t, "create", "rolebinding", "wasmbox-push", "--role=wasmbox-push", "--user=developer")
	defer kubectl(t, "delete", "rolebinding", "wasmbox-push")
	kubectl(t, "wait", "--for=condition=Ready", "pod/pushed", "--timeout=180s")

	developer := "KUBECONFIG=" + c.pki.client(t, "developer", "developer")
	wasmbox := func(arguments ...string) string {
		return output(t, "env", append([]string{developer, "WASMBOX_TOKEN=0123456789abcdef-of-the-test", "/opt/wasmbox/bin/wasmbox"},
			append(arguments, "--service=default/pushed")...)...)
	}
	if said := wasmbox("push", "examples/functions/hello.wat"); !strings.HasPrefix(said, "hello: created") {
		t.Errorf("push: %s", said)
	}
	if said := wasmbox("list"); !strings.Contains(said, "hello") {
		t.Errorf("list: %s", said)
	}
}
