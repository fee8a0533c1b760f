"""Who may import whom: core <- schemes <- plugins <- gate <- adapters; the core knows the standard library only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = "hmac_gateway"


def imports(path: Path) -> Iterator[str]:
    """Absolute names of everything that a file imports, wherever in the file."""
    relative = path.relative_to(ROOT).with_suffix("")
    package = ".".join(relative.parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            yield base
            # `from . import x` may name a module.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def files(*places: str) -> list[Path]:
    found: list[Path] = []
    for place in places:
        path = ROOT / place
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    assert found
    return found


def allowed(name: str, *packages: str, libraries: tuple[str, ...] = ()) -> bool:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in libraries:
        return True
    return any(name == package or name.startswith(package + ".") for package in packages)


RULES = [
    ("core", ("hmac_gateway/core",), ("core",), ()),
    ("schemes", ("hmac_gateway/schemes",), ("core", "schemes"), ()),
    ("schema", ("hmac_gateway/schema.py",), ("core",), ("jsonschema",)),
    ("regex", ("hmac_gateway/regex.py",), ("core",), ("re2",)),
    ("expr", ("hmac_gateway/expr.py",), ("core", "regex"), ()),
    ("gate", ("hmac_gateway/gate.py",), ("core", "schemes", "schema", "plugins", "expr"), ()),
    ("routing_kong", ("hmac_gateway/routing_kong.py",), ("core", "regex", "routing"), ()),
    ("routing", ("hmac_gateway/routing.py",), ("core", "gate"), ()),
    ("snapshot", ("hmac_gateway/snapshot.py",), ("core", "gate", "routing"), ()),
    ("client", ("hmac_gateway/client",), ("core", "schemes", "client"), ("requests", "httpx")),
    ("auth_request", ("hmac_gateway/adapters/auth_request.py",), ("core", "trust"), ()),
    ("plugins", ("hmac_gateway/plugins",), ("core", "schemes", "schema", "expr", "plugins"), ("cryptography", "jwt")),
]


@pytest.mark.parametrize(
    ("places", "packages", "libraries"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES]
)
def test_layers(places: tuple[str, ...], packages: tuple[str, ...], libraries: tuple[str, ...]) -> None:
    may = tuple(f"{ENGINE}.{package}" for package in packages)
    for path in files(*places):
        for name in imports(path):
            # `from ..core import x` also yields the package itself.
            inside = name == ENGINE and path.name == "__init__.py"
            assert inside or allowed(name, *may, libraries=libraries), f"{path.relative_to(ROOT)} imports {name}"


def test_the_library_does_not_read_the_standalone_settings() -> None:
    standalone = {"settings.py", "urls.py", "asgi.py", "wsgi.py"}
    for path in files("hmac_gateway", "consumers", "proxy"):
        if path.parent.name == ENGINE and path.name in standalone:
            continue
        assert "hmac_gateway.settings" not in set(imports(path)), path


def test_consumers_and_proxy_do_not_know_each_other() -> None:
    for own, other in (("consumers", "proxy"), ("proxy", "consumers")):
        for path in files(own):
            for name in imports(path):
                assert name.partition(".")[0] != other, f"{path.relative_to(ROOT)} imports {name}"
                assert not name.startswith(f"{ENGINE}.{other}"), f"{path.relative_to(ROOT)} imports {name}"


def test_the_two_apps_can_be_moved() -> None:
    # The wheel puts them inside the engine, so they may not name themselves.
    for own in ("consumers", "proxy"):
        for path in files(own):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                assert not any(name.partition(".")[0] == own for name in names), path


def test_the_core_runs_without_django() -> None:
    code = (
        "import sys, hmac_gateway.core.message, hmac_gateway.schemes, hmac_gateway.schemes.verify;"
        "foreign = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'hmac_gateway'};"
        "print(sorted(name for name in foreign if name in ('django', 'rest_framework', 'jsonschema', 'cryptography')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_gate_runs_without_django() -> None:
    code = "import sys, hmac_gateway.gate, hmac_gateway.snapshot; print('django' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
