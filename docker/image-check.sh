#!/usr/bin/env bash
# Builds the image without a container engine and starts it: buildah (chroot isolation, vfs) on a stand-in for the Python
# image that mmdebstrap makes from Debian's packages. Needs root, and: apt-get install buildah mmdebstrap
#   IMAGE_CHECK_DIR     where the stand-in and the image are kept (else a temporary folder, removed at the end)
#   IMAGE_CHECK_SUITE   the Debian release of the stand-in, and so its Python (else trixie, which has 3.13)
#   IMAGE_CHECK_TARGET  the target to build (else the worker)
#   IMAGE_CHECK_LAYERS  true keeps every step for the next build, and a copy of all files for each: 40 GB
#   TORCH_INDEX         as for the Dockerfile
# pip's settings of this machine count in the build too: as secrets and mounts, so that none of them gets into the image.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in buildah mmdebstrap; do
  if ! command -v "$program" > /dev/null; then
    echo "Error: $program isn't installed. As root: apt-get install buildah mmdebstrap" >&2
    exit 2
  fi
done

work=${IMAGE_CHECK_DIR:-}
if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'buildah_ umount --all > /dev/null 2>&1 || true; rm -rf "$work"' EXIT
fi
mkdir -p "$work"
suite=${IMAGE_CHECK_SUITE:-trixie}
target=${IMAGE_CHECK_TARGET:-worker}
image=localhost/loracle-$target:$suite

buildah_() {
  buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}

if ! buildah_ inspect --type image "localhost/python:$suite" > /dev/null 2>&1; then
  echo "The stand-in for the Python image: Debian $suite …"
  # The official image has Python and certificates too, and no more than that is used of it.
  mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$work/base.tar"
  base=$(buildah_ from scratch)
  buildah_ add --quiet "$base" "$work/base.tar" / > /dev/null
  buildah_ commit --quiet --rm "$base" "localhost/python:$suite" > /dev/null
  rm "$work/base.tar"
fi

# pip.conf, and the folders and files on this machine that it names.
python3 - "$work" <<'PYTHON' > "$work/mounts"
import configparser, pathlib, subprocess, sys, urllib.parse

work = pathlib.Path(sys.argv[1])
told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
settings, words = {}, []
for line in told.splitlines():
    name, _, value = line.partition("=")
    settings[name.rpartition(".")[2]] = value.strip("'")
certificates = settings.get("cert")
for value in settings.values():
    for word in value.split():
        if "/" in word and word != certificates:
            words.append(f"{word}\n")
        path = pathlib.Path(urllib.parse.unquote(word.removeprefix("file://")))
        if path.is_absolute() and path.exists() and word != certificates:
            # An index refers to its files by a path beside it.
            path = path.parent if path.name == "simple" else path
            print(f"--volume={path}:{path}:ro")
if certificates:
    (work / "ca").write_bytes(pathlib.Path(certificates).read_bytes())
    settings["cert"] = "/run/secrets/ca"
else:
    (work / "ca").touch()
file = configparser.RawConfigParser()
file["global"] = settings
with (work / "pip.conf").open("w") as out:
    file.write(out)
# Places of this machine that must not be found in the image.
(work / "words").write_text("".join(words))
PYTHON
mapfile -t mounts < "$work/mounts"

echo "The image …"
started=$SECONDS
buildah_ bud --quiet --isolation chroot --layers="${IMAGE_CHECK_LAYERS:-false}" --file docker/Dockerfile --target "$target" --tag "$image" \
  --build-arg PYTHON_IMAGE="localhost/python:$suite" --build-arg TORCH_INDEX="${TORCH_INDEX:-}" --pull-never \
  --secret id=pip,src="$work/pip.conf" --secret id=ca,src="$work/ca" "${mounts[@]}" . > "$work/build.log" 2>&1 \
  || { tail -n 40 "$work/build.log" >&2; exit 1; }
echo "Built in $((SECONDS - started)) s."

container=$(buildah_ from --pull-never "$image")
root=$(buildah_ mount "$container")
echo "All of it: $(du -sm "$root" | cut -f1) MB; the stand-in for the base: $(du -sm --exclude=opt/loracle "$root" | cut -f1) MB; \
torch: $(du -smc "$root"/opt/loracle/lib/python*/site-packages/{torch,nvidia,triton} 2> /dev/null | tail -n 1 | cut -f1) MB; \
this project: $(du -smc "$root"/opt/loracle/lib/python*/site-packages/{worker,trainer,migrations} | tail -n 1 | cut -f1) MB"
if [ -s "$work/words" ] && grep -rqsF -f "$work/words" "$root/etc/pip.conf" "$root/root" 2> /dev/null; then
  echo "Error: pip's settings got into the image." >&2
  exit 1
fi

# Started as Docker would: a read-only root, tmpfs where something is written, the image's user, no capability.
inside() {
  unshare --mount --pid --fork --kill-child bash -euc '
    root=$1; shift
    mount --bind "$root" "$root"
    mount -o remount,ro,bind "$root"
    mount -t tmpfs tmpfs "$root/tmp"
    mount -t tmpfs -o uid=10001,mode=700 tmpfs "$root/var/lib/loracle"
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/dev"
    for device in null zero urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
    mkdir "$root/dev/shm"; mount -t tmpfs tmpfs "$root/dev/shm"
    exec chroot "$root" setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set=-all \
      env -i PATH=/opt/loracle/bin:/usr/bin:/bin LORACLE_HOME=/var/lib/loracle PYTHONDONTWRITEBYTECODE=1 "$@"
  ' inside "$root" "$@"
}

inside loracle --version
if [ "$target" = trainer ]; then
  inside loracle train --help > /dev/null
else
  data=$(echo "$root"/opt/loracle/lib/python*/site-packages/worker/data/sample_reviews.csv)
  inside sh -euc '
    touch /opt/loracle/written 2> /dev/null && { echo "Error: the root file system can be written." >&2; exit 1; }
    loracle run "$1"
    loracle worker & worker=$!
    until loracle health > /dev/null 2>&1; do sleep 0.2; kill -0 $worker; done
    loracle health
    kill $worker
    wait $worker
    if loracle health; then echo "Error: a worker that has ended is called healthy." >&2; exit 1; fi
  ' sh "${data#"$root"}"
fi
buildah_ rm "$container" > /dev/null
echo "1 passed, 0 failed"
