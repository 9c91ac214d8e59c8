#!/usr/bin/env bash
# filter.sh DIRECTORY: a real nginx takes deployment/knative-fork/memory-request.conf, before a server that answers with the Memory-Request that
# arrives. What the fork can count arrives, the rest does not.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$1
tools=$PWD/target/tools/deployment
fail() {
    echo "tests/deployment/filter.sh: $*" >&2
    exit 1
}
# Taken out of its package: installing it would start a server.
nginx=$(command -v nginx || echo "$tools/nginx/usr/sbin/nginx")
if [ ! -x "$nginx" ]; then
    command -v apt-get >/dev/null || fail "nginx is missing: install it"
    apt-cache show nginx >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update -qq
    rm -rf "$tools/nginx" && mkdir -p "$tools/nginx"
    (cd "$tools/nginx" && apt-get download -qq -o APT::Sandbox::User=root nginx && dpkg-deb -x nginx_*.deb .) || fail "Debian's package nginx cannot be had"
fi

rm -rf "$work" && mkdir -p "$work"
cat >"$work/upstream.py" <<'PYTHON'
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ",".join(self.headers.get_all("Memory-Request", [])).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
PYTHON
pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done' EXIT
# eventually COMMAND...
eventually() {
    for _ in $(seq 600); do
        ! "$@" || return 0
        sleep 0.1
    done
    fail "does not come true: $*"
}
python3 "$work/upstream.py" >"$work/port" &
pids+=($!)
eventually test -s "$work/port"
sed "s|http://kourier[^;]*|http://127.0.0.1:$(cat "$work/port")|; s|listen 8080|listen unix:$work/socket|" \
    deployment/knative-fork/memory-request.conf >"$work/filter.conf"
grep -q "127.0.0.1:$(cat "$work/port")" "$work/filter.conf" && grep -q "unix:$work/socket" "$work/filter.conf" || fail "the file has another form"
mkdir "$work/temporary"
cat >"$work/nginx.conf" <<NGINX
daemon off;
master_process off;
pid $work/pid;
error_log $work/errors;
events {}
http {
    access_log off;
    client_body_temp_path $work/temporary/body;
    proxy_temp_path $work/temporary/proxy;
    fastcgi_temp_path $work/temporary/fastcgi;
    uwsgi_temp_path $work/temporary/uwsgi;
    scgi_temp_path $work/temporary/scgi;
    include $work/filter.conf;
}
NGINX
"$nginx" -p "$work" -e "$work/errors" -c "$work/nginx.conf" 2>"$work/output" &
pids+=($!)
# get HEADER...: the status, then the body.
get() {
    local arguments=() header
    for header in "$@"; do arguments+=(--header "$header"); done
    curl --silent --show-error --unix-socket "$work/socket" --output "$work/body" --write-out '%{http_code} ' "${arguments[@]}" http://box/hello
    cat "$work/body"
}
eventually test -S "$work/socket"
[ "$(get)" = "200 " ] || fail "without the header: $(get)"
for good in 1 8 200 9999; do
    [ "$(get "Memory-Request: $good")" = "200 $good" ] || fail "$good: $(get "Memory-Request: $good")"
done
for bad in NaN nan Inf -5 +5 0 007 1.5 1e3 1Gi 256Mi 10000 99999999999999999999 "2 0" "200, NaN" "0x10" $'200\tNaN'; do
    case $(get "Memory-Request: $bad") in
    400*expected*) ;;
    *) fail "\"$bad\" passes: $(get "Memory-Request: $bad")" ;;
    esac
done
# Two of them: whichever nginx takes, one that can be counted arrives, or none.
case $(get "Memory-Request: 200" "Memory-Request: NaN") in
"200 200" | 400*) ;;
*) fail "two headers: $(get "Memory-Request: 200" "Memory-Request: NaN")" ;;
esac
