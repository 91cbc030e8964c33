"""The notebook runs from top to bottom; in a real kernel an interrupted training cell leaves a run that goes on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from viceversa.model.file import load_model

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed: pip install 'viceversa[test]'")
pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install 'viceversa[test]'")
NOTEBOOK = Path(__file__).parent.parent / "examples" / "day_night.ipynb"


def outputs(cell):
    """The data of a cell's outputs by kind: "text/html", "image/png", ...; what is printed under "text"."""
    found = {}
    for output in cell.outputs:
        for kind, value in {**output.get("data", {}), **({"text": output["text"]} if "text" in output else {})}.items():
            found.setdefault(kind, []).append(value)
    return found


@pytest.mark.timeout(900)
def test_runs_from_top_to_bottom(tmp_path):
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs: clear them before a commit"
    (training,) = (cell for cell in notebook.cells if "minutes=0.75" in cell.source)
    training.source = training.source.replace("minutes=0.75", "minutes=0.1")  # what it learns is looked at elsewhere
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = outputs(next(cell for cell in cells if "viceversa.train(" in cell.source))
    lines, still = (next(h for h in shown["text/html"] if mark in h) for mark in ("<pre", "<img"))
    assert "day -&gt; night" in lines and still.startswith('<img src="data:image/webp;base64,')
    assert "epoch" not in "".join(shown.get("text", [])), "a wall of lines"
    assert sum("image/png" in outputs(cell) for cell in cells) >= 4
    assert load_model(tmp_path / "runs" / "earth" / "model.safetensors").domains == ("day", "night")
    assert (tmp_path / "flight-night.mp4").stat().st_size > 1000


@pytest.fixture
def kernel(tmp_path):
    """A kernel in a folder with two small folders of images."""
    from jupyter_client.manager import start_new_kernel

    source = np.random.default_rng(0)
    for name, light in (("day", 255), ("night", 80)):
        (tmp_path / name).mkdir()
        for n in range(4):
            pixels = (source.random((6, 6, 3)) * light).astype(np.uint8)
            Image.fromarray(pixels).resize((48, 40)).save(tmp_path / name / f"{n}.png")
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client, code, at=None, then=None):
    """Execute a cell; call `then` once, when a message comes for which `at` holds. Its reply, and its messages."""
    seen = []

    def hook(message):
        nonlocal then
        seen.append(message)
        if then and at(message):
            once, then = then, None
            once()

    return client.execute_interactive(code, output_hook=hook, timeout=300)["content"], seen


def is_still(message):
    """The pictures of an epoch have come."""
    return "<img" in message["content"].get("data", {}).get("text/html", "")


def printed(messages):
    return "".join(m["content"].get("text", "") for m in messages if m["msg_type"] == "stream")


def test_an_interrupted_cell_saves_and_goes_on_when_it_is_run_again(kernel, tmp_path):
    manager, client = kernel
    cell = """
import viceversa
run = viceversa.train("day", "night", out="run", epochs={}, decay_epochs=0, size=36, crop=32, width=4, blocks=1,
                      discriminator_layers=1, device="cpu", log="none", seed=1)
"""
    reply, messages = run(client, cell.format(100_000), is_still, manager.interrupt_kernel)
    assert reply["status"] == "error" and reply["ename"] == "Interrupted"
    assert "all saved: the same command goes on" in reply["evalue"]
    places = [m["content"]["transient"]["display_id"] for m in messages if m["msg_type"] == "display_data"]
    updates = {m["content"]["transient"]["display_id"] for m in messages if m["msg_type"] == "update_display_data"}
    assert len(places) == 2 and updates <= set(places), "lines and pictures, each in its own place"
    assert list((tmp_path / "run" / "checkpoint").glob("*.json"))

    reply, messages = run(client, cell.format(100_000), is_still, manager.interrupt_kernel)
    assert reply["ename"] == "Interrupted" and "going on after epoch" in printed(messages)

    # The kernel is alive, and Ctrl-C is its own again.
    reply, _ = run(client, "viceversa.load('run')('day/0.png', to='night').size == (48, 40) or 1/0")
    assert reply["status"] == "ok"
    reply, _ = run(
        client,
        "print('here', flush=True)\nwhile True: pass",
        lambda m: "here" in printed([m]),
        manager.interrupt_kernel,
    )
    assert reply["ename"] == "KeyboardInterrupt"


def test_outside_of_a_notebook_nothing_of_it_is_imported():
    import subprocess
    import sys

    code = "import sys; from viceversa.training.display import notebook_cell; assert notebook_cell() is None"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'IPython' not in sys.modules"], check=True)
