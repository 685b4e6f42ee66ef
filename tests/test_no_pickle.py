"""Nothing in the package unpickles or runs what a file holds, but in the one place that says so."""

import ast
from pathlib import Path

import statesize

MODULES = sorted(Path(statesize.__file__).parent.rglob("*.py"))
FORBIDDEN_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "yaml"}
FORBIDDEN_CALLS = {
    "eval", "exec", "__import__", "torch.load", "torch.hub.load", "numpy.load", "np.load", "pd.read_pickle",
    "pandas.read_pickle", "os.system", "os.popen",
}  # fmt: skip


def forbidden(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN_MODULES}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FORBIDDEN_MODULES:
            found.add(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found |= {name} & FORBIDDEN_CALLS
            options = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
            found |= {f"{name}(shell)" for value in [options.get("shell")] if value == "True"}
            found |= {f"{name}(pickle)" for value in [options.get("weights_only")] if value not in {None, "True"}}
    return found


def test_no_module_unpickles_or_runs_what_it_reads():
    assert len(MODULES) > 100
    found = {path.name: what for path in MODULES if (what := forbidden(path.read_text(encoding="utf-8")))}
    assert found == {}


def test_they_are_found():
    for source in ("import pickle", "from dill import load", "torch.load(path)", "eval(text)", "run(x, shell=True)"):
        assert forbidden(source)
    assert forbidden("f(weights_only=no)")
