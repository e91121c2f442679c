"""The Python that pages show: it compiles, and what it imports from hpc_train is there."""

import ast
import importlib

import pytest
import shown

PROGRAMS = [program for page in shown.pages() for program in shown.programs(page)]


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_a_program_imports_what_there_is(program):
    for node in ast.walk(ast.parse(program.text)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "hpc_train":
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")
