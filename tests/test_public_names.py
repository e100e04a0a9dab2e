"""What can be imported from `detox_tune`: the names of `__init__.pyi`, each from its module."""

import ast
from importlib import import_module
from pathlib import Path

import detox_tune


def test_every_public_name_imports_and_is_the_one_of_its_module() -> None:
    stub = Path(detox_tune.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    imports = [node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)]
    assert len(imports) > 10
    for node in imports:
        assert node.module
        module = import_module(f"detox_tune.{node.module}")
        for alias in node.names:
            assert getattr(detox_tune, alias.name) is getattr(module, alias.name)
            assert alias.name in dir(detox_tune)
