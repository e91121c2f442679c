# shellcheck shell=bash
# Lends the building machine's certificates, proxies and package indexes to the build; the image must not keep them.
# build.sh sources this file. The folder that it fills is mounted at /mnt while %post runs, and install.sh reads it.

lend() { # fills $1, an empty folder; sets binds: the options with which `apptainer build` mounts everything
  local certificates='' file name
  binds=(--bind "$1:/mnt:ro")
  : >"$1/environment"
  for file in "$(pip_setting cert)" "${SSL_CERT_FILE:-}" "${CURL_CA_BUNDLE:-}" "${REQUESTS_CA_BUNDLE:-}" \
    /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem; do
    [ ! -f "$file" ] || [ ! -r "$file" ] || { certificates=$file; break; }
  done
  if [ -n "$certificates" ]; then
    cat "$certificates" >"$1/certificates.crt" # a copy that apt's user can read
    printf 'export %s=/mnt/certificates.crt\n' SSL_CERT_FILE PIP_CERT >>"$1/environment"
    echo 'Acquire::https::CAInfo "/mnt/certificates.crt";' >"$1/apt.conf"
    echo 'export APT_CONFIG=/mnt/apt.conf' >>"$1/environment"
  fi
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    [ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}" >>"$1/environment"
  done
  lend_indexes "$1"
}

lend_indexes() { # the indexes in pip's configuration and variables; folders among them are mounted
  local name value word words folder shown number=0
  for name in index-url extra-index-url find-links trusted-host no-index proxy; do
    value=$(pip_setting "$name")
    [ -n "$value" ] || continue
    words=()
    for word in $value; do
      folder=${word#file://}
      if [ -d "$folder" ] && [ "${folder#/}" != "$folder" ]; then
        number=$((number + 1))
        mkdir "$1/folder$number"
        shown=${folder%/simple} # the index of a mirror links to files beside it
        binds+=(--bind "$shown:/mnt/folder$number:ro")
        word=${word/"$shown"//mnt/folder$number}
      fi
      words+=("$word")
    done
    name=PIP_${name//-/_}
    printf 'export %s=%q\n' "${name^^}" "${words[*]}" >>"$1/environment"
  done
}

pip_setting() { # the value of $1 in `pip config list`: from its variable, else section `install`, else `global`
  # Without pip only the variable is read.
  { python3 -m pip config list 2>/dev/null || true; } | python3 -c '
import ast, os, sys
found = {}
variable = os.environ.get("PIP_" + sys.argv[1].upper().replace("-", "_"))
if variable:
    found[":env:"] = variable
for line in sys.stdin:
    key, _, value = line.strip().partition("=")
    place, _, name = key.partition(".")
    if name.strip(".") == sys.argv[1]:
        found[place] = str(ast.literal_eval(value))
print(next((found[place] for place in (":env:", "install", "global") if place in found), "").replace("\n", " "))
' "$1"
}
